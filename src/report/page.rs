//! The HTML file: sections put into the template, with the style and the scripts in it. Knows no
//! runs.

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use serde::Serialize;

use super::block::Section;
use super::error::ReportError;

/// The head of a page.
#[derive(Serialize)]
pub struct Heading {
    /// Its title.
    pub title: String,
    /// One line under it.
    pub subtitle: String,
    /// The state of the run, or nothing.
    pub state: String,
}

/// A script of the charts.
pub struct Script {
    /// Its file name.
    pub file: &'static str,
    /// Its licence; empty for our own.
    pub licence: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The charts' libraries, then our own script.
pub fn scripts() -> [Script; 4] {
    let library = |file, licence, text| Script { file, licence, text: without_map(text) };
    [
        library("d3.min.js", include_str!("page/vendor/d3.LICENSE"), include_str!("page/vendor/d3.min.js")),
        library("plot.min.js", include_str!("page/vendor/plot.LICENSE"), include_str!("page/vendor/plot.min.js")),
        library("dagre.min.js", include_str!("page/vendor/dagre.LICENSE"), include_str!("page/vendor/dagre.min.js")),
        library("charts.js", "", include_str!("page/charts.js")),
    ]
}

/// The page. The template engine escapes everything from a run. Scripts run only with a nonce: the
/// hash of all content, so that no text in a run can know it.
///
/// # Errors
/// The template cannot be rendered; no run is known to cause this.
pub fn render(heading: &Heading, sections: &[Section]) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    // The name's ending turns the escaping on.
    environment.add_template("page.html", include_str!("page/page.html"))?;
    let template = environment.get_template("page.html")?;
    let scripts: Vec<(&str, &str)> = scripts().iter().map(|script| (script.licence, script.text)).collect();
    let shown = context! {
        heading => Value::from(Serde(heading)), sections => Value::from(Serde(sections)), scripts,
        style => include_str!("page/style.css"), version => env!("CARGO_PKG_VERSION"),
    };
    let page = |nonce: &str| template.render(context! { nonce, ..shown.clone() });
    let nonce = blake3::hash(page("")?.as_bytes()).to_hex();
    Ok(page(nonce.as_str())?)
}

/// A script without the comment about its source map: a browser's tools would try to load the map.
fn without_map(script: &'static str) -> &'static str {
    script.split("//# sourceMappingURL").next().unwrap_or(script)
}
