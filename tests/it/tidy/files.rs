//! Every file says in its first line what it is, and no file is long.

use super::tree::Tree;

const MOST_LINES: usize = 500;

/// Files without an opening `//! `.
fn openings(tree: &Tree) -> Vec<String> {
    let silent = tree.files.iter().filter(|file| !file.text.starts_with("//! "));
    silent.map(|file| format!("{} does not open with //!", file.path)).collect()
}

/// Files over [`MOST_LINES`].
fn lengths(tree: &Tree) -> Vec<String> {
    let long = tree.files.iter().filter(|file| file.text.lines().count() > MOST_LINES);
    long.map(|file| format!("{} has {} lines, more than {MOST_LINES}", file.path, file.text.lines().count())).collect()
}

#[test]
fn every_file_says_what_it_is() {
    super::assert_tidy(&openings(super::library()));
    super::assert_tidy(&openings(&tests()));
}

#[test]
fn no_file_is_long() {
    super::assert_tidy(&lengths(super::library()));
    super::assert_tidy(&lengths(&tests()));
}

fn tests() -> Tree {
    Tree::read(&super::repository().join("tests"))
}

#[test]
fn a_planted_silent_file_is_found() {
    let clean = [("lib.rs", "//! .\n")];
    assert!(openings(&super::planted::tree(&clean)).is_empty());
    super::assert_one(&openings(&super::planted::with(&clean, "lib.rs", "// A comment.\n")), "lib.rs does not open");
}

#[test]
fn a_planted_long_file_is_found() {
    let clean = [("lib.rs", "//! .\n")];
    let lines = |count: usize| "//! .\n".repeat(count);
    assert!(lengths(&super::planted::with(&clean, "lib.rs", &lines(MOST_LINES))).is_empty());
    super::assert_one(&lengths(&super::planted::with(&clean, "lib.rs", &lines(MOST_LINES + 1))), "501 lines");
}
