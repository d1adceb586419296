//! Links between pages, and the files named on them.
//!
//! A link is relative: to a file or folder, to a heading of the same page, or to a heading of
//! another page. Paths in backticks start at the root of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use super::markdown::{Page, backticks, prose};

/// Folders at the root. Inline code with one of them in front is a path.
const FOLDERS: [&str; 7] = ["src/", "tests/", "docs/", "benches/", "pipelines/", "datasets/", "fuzz/"];

/// Every link of a page without a target, and every named file without a file.
pub fn faults(root: &Path, page: &Page) -> Vec<String> {
    let prose = prose(&page.text);
    let parts = backticks(&prose);
    let outside: String = parts.iter().step_by(2).copied().collect();
    let mut faults = Vec::new();
    for target in targets(&outside) {
        if let Err(problem) = resolve(root, page, target) {
            faults.push(format!("{}: link to {target}: {problem}", page.path));
        }
    }
    for code in parts.iter().skip(1).step_by(2) {
        let is_plain = !code.contains(|c: char| " <*{…".contains(c));
        let is_from_root = FOLDERS.iter().any(|folder| code.starts_with(folder));
        // A page about tests or code leaves out their folder.
        let is_code = code.contains('/') && code.ends_with(".rs");
        let exists =
            root.join(code).exists() || (is_code && ["src", "tests/it"].iter().any(|folder| root.join(folder).join(code).exists()));
        if is_plain && (is_from_root || is_code) && !exists {
            faults.push(format!("{}: {code} does not exist", page.path));
        }
    }
    faults
}

/// The targets of links and images, in Markdown and in HTML.
fn targets(text: &str) -> Vec<&str> {
    let between =
        |start: &'static str, end: char| text.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(target, _)| target));
    let found = between("](", ')').chain(between(" src=\"", '"')).chain(between(" srcset=\"", '"')).chain(between(" href=\"", '"'));
    found.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

fn resolve(root: &Path, page: &Page, target: &str) -> Result<(), String> {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let here = root.join(&page.path);
    let file: PathBuf = if path.is_empty() { here } else { here.parent().unwrap_or(root).join(path) };
    // A page in memory has no file of its own.
    if !path.is_empty() && !file.exists() {
        return Err("no such file".to_string());
    }
    let Some(anchor) = anchor else { return Ok(()) };
    let text = if path.is_empty() { page.text.clone() } else { fs::read_to_string(&file).map_err(|error| error.to_string())? };
    let anchors = anchors(&text);
    if anchors.iter().any(|found| found == anchor) { Ok(()) } else { Err(format!("no heading #{anchor} among {}", anchors.join(", "))) }
}

/// The anchors of all headings, as GitHub and mdBook make them. Equal headings are numbered.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let prose = prose(text);
    for heading in prose.lines().filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let earlier = anchors.iter().filter(|found| **found == anchor).count();
        anchors.push(anchor.clone());
        if earlier > 0 {
            anchors.push(format!("{anchor}-{earlier}"));
        }
    }
    anchors
}
