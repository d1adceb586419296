//! The files of the page: they are in the program, and load nothing from elsewhere. Knows no run.

use crate::report;

/// A file.
pub(super) struct File {
    /// Its media type.
    pub media: &'static str,
    /// Its text.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's own files.
const OWN: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/icon.svg", PICTURE, include_str!("page/icon.svg")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/ask.js", SCRIPT, include_str!("page/ask.js")),
    ("/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/prompts.js", SCRIPT, include_str!("page/prompts.js")),
    ("/prompt.js", SCRIPT, include_str!("page/prompt.js")),
    ("/tables.js", SCRIPT, include_str!("page/tables.js")),
    ("/charts-page.js", SCRIPT, include_str!("page/charts-page.js")),
    ("/annotate.js", SCRIPT, include_str!("page/annotate.js")),
];

/// The file at a path.
pub(super) fn file(path: &str) -> Option<File> {
    let own = OWN.iter().find(|(other, _, _)| *other == path).map(|(_, media, text)| File { media, text });
    own.or_else(|| {
        let name = path.strip_prefix('/')?;
        let script = report::scripts().into_iter().find(|script| script.file == name)?;
        Some(File { media: SCRIPT, text: script.text })
    })
}

#[cfg(test)]
mod tests {
    use super::{OWN, file};

    #[test]
    fn the_page_loads_its_own_files_only() {
        for (path, _, text) in OWN {
            let loads = ["src=\"", "href=\"", "from \"", "import(\"", "loadScript(\""];
            for (begin, _) in loads.iter().flat_map(|load| text.match_indices(load).map(move |(at, _)| (at + load.len(), load))) {
                let target = text[begin..].split('"').next().unwrap();
                let target = target.trim_start_matches('.');
                assert!(target.starts_with('#') || file(target).is_some(), "{path} loads {target:?}");
            }
            for foreign in ["http://", "https://", "@import", "url("] {
                let allowed = text.replace("http://www.w3.org/", "");
                assert!(!allowed.contains(foreign), "{path}: {foreign}");
            }
        }
    }

    #[test]
    fn texts_of_a_run_never_become_markup() {
        for (path, _, text) in OWN {
            for door in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "srcdoc"] {
                assert!(!text.contains(door), "{path}: {door}");
            }
        }
    }
}
