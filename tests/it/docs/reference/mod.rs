//! The pages of `docs/reference/` made from the code: the pipeline file, the command line, and the
//! tables.
//!
//! `OPTUNE_UPDATE_DOCS=1` writes them. Without it a page different from the code is a fault.

mod command_line;
mod pipeline_file;
mod tables;

use std::fs;

use super::markdown::repository;

/// The command for a page out of date.
const UPDATE: &str = "OPTUNE_UPDATE_DOCS=1 cargo test --release --locked reference_pages";

#[test]
fn reference_pages_are_those_of_the_code() {
    let is_update = std::env::var_os("OPTUNE_UPDATE_DOCS").is_some();
    let pages = [("pipeline-file.md", pipeline_file::page()), ("cli.md", command_line::page()), ("tables.md", tables::page())];
    let mut old = Vec::new();
    for (name, page) in pages {
        let path = repository().join("docs/reference").join(name);
        if is_update {
            fs::write(&path, &page).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        if let Some(difference) = difference(&page, &found) {
            old.push(format!("docs/reference/{name}:{difference}"));
        }
    }
    assert!(old.is_empty(), "\n{}\nThe pages are made from the code. Update them: {UPDATE}", old.join("\n"));
}

/// The first line where a page is not the expected one.
fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut lines = expected.lines().zip(found.lines());
    let line = lines.position(|(expected, found)| expected != found).unwrap_or(expected.lines().count().min(found.lines().count()));
    let shown = |text: &str| text.lines().nth(line).unwrap_or("the end of the page").to_string();
    Some(format!("{}: expected {}\n  found {}", line + 1, shown(expected), shown(found)))
}

#[test]
fn a_page_out_of_date_is_found() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "2: expected b\n  found c");
    assert_eq!(difference("a\nb\n", "a\n").unwrap(), "2: expected b\n  found the end of the page");
}

/// A text as the cell of a Markdown table: one line, without the separator.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
