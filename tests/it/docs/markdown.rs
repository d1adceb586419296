//! Markdown, as far as the tests need it: the pages, their fenced blocks, and their prose.
//!
//! Knows nothing of optune.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fixtures::files::files_under;

/// One page of the documentation.
pub struct Page {
    /// Its path from the root of the repository.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// A fenced block of a page.
#[derive(Debug, PartialEq)]
pub struct Block {
    /// The words behind the fence, such as `yaml fragment`.
    pub kind: String,
    /// The line of the fence, from 1.
    pub line: usize,
    /// The lines inside.
    pub text: String,
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page under test.
pub fn pages() -> Vec<Page> {
    let root = repository();
    let readmes = ["README.md", "CONTRIBUTING.md", "tests/README.md", "benches/README.md", "datasets/tasks/README.md", "fuzz/README.md"];
    let documentation = files_under(&root.join("docs"));
    let documentation = documentation.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let documentation = documentation.map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_string());
    readmes.into_iter().map(str::to_string).chain(documentation).map(|path| page(&root, path)).collect()
}

fn page(root: &Path, path: String) -> Page {
    let text = fs::read_to_string(root.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Page { path, text }
}

/// The fenced blocks of a page, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some(Block { kind: kind.trim().to_string(), line: index + 1, text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text += line;
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fenced block has no end");
    blocks
}

/// A page without its fenced blocks. The numbers of the lines stay.
pub fn prose(text: &str) -> String {
    let mut is_inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_inside = !is_inside;
        } else if !is_inside {
            prose += line;
        }
        prose.push('\n');
    }
    prose
}

/// The parts of a text outside and inside of backticks, in turns. The first part is outside.
pub fn backticks(prose: &str) -> Vec<&str> {
    prose.split('`').collect()
}
