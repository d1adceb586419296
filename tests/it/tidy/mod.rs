//! The rules of the source tree: layers, crates, operators, circles, files and prose.
//!
//! A check takes a tree and returns one line for each problem. A test of each check runs it on
//! `src/`, and a second one on planted trees, with and without a violation.

mod circles;
mod crates;
mod files;
mod floors;
mod operators;
mod planted;
mod prose;
mod resolve;
mod tokens;
mod tree;
mod uses;

use std::sync::LazyLock;

use tree::Tree;

/// The tree of the library.
fn library() -> &'static Tree {
    static LIBRARY: LazyLock<Tree> = LazyLock::new(|| Tree::read(&repository().join("src")));
    &LIBRARY
}

fn repository() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with one line for each problem.
fn assert_tidy(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Fails unless there is exactly one problem and it has the text.
fn assert_one(problems: &[String], text: &str) {
    assert!(problems.len() == 1 && problems[0].contains(text), "expected one problem with {text:?}, found {problems:?}");
}
