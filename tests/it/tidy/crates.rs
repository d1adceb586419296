//! Crates hidden from modules: Arrow and burn meet in `operators` only.

use super::tree::Tree;

/// Crates forbidden in a module, as the table in `lib.rs` has it.
const FORBIDDEN: [(&str, &[&str]); 19] = [
    ("cli", &["burn"]),
    ("view", &["burn", "datafusion"]),
    ("run", &["burn"]),
    ("report", &["burn", "datafusion"]),
    ("import", &["burn", "datafusion"]),
    ("tracking", &["burn", "datafusion"]),
    ("alarm", &["burn", "datafusion"]),
    ("sql", &["burn"]),
    ("generation", &["arrow", "datafusion"]),
    ("training", &["arrow", "datafusion"]),
    ("pipeline", &["arrow", "burn", "datafusion", "parquet"]),
    ("store", &["burn", "datafusion"]),
    ("compute", &["arrow", "datafusion"]),
    ("remote", &["arrow", "burn", "datafusion", "parquet"]),
    ("tables", &["burn", "datafusion", "parquet"]),
    ("dag", &["arrow", "burn", "datafusion"]),
    ("model", &["arrow", "datafusion"]),
    ("disk", &["arrow", "burn", "datafusion", "parquet"]),
    ("process", &["arrow", "burn", "datafusion", "parquet"]),
];

/// Paths into forbidden crates.
fn problems(tree: &Tree, forbidden: &[(&str, &[&str])]) -> Vec<String> {
    let mut found = Vec::new();
    for (module, scope) in &tree.scopes {
        let Some((own, crates)) = forbidden.iter().find(|(own, _)| module.first().is_some_and(|top| top == own)) else { continue };
        for path in scope.imports.iter().map(|import| &import.path).chain(&scope.paths) {
            let outside = tree.resolve(module, path).module().is_none();
            if outside && crates.contains(&path[0].as_str()) {
                found.push(format!("{}: {own} must not know {}", tree.file_of(scope), path.join("::")));
            }
        }
    }
    found
}

#[test]
fn modules_name_only_the_crates_they_may() {
    super::assert_tidy(&problems(super::library(), &FORBIDDEN));
}

#[test]
fn planted_crates_are_found() {
    let forbidden: [(&str, &[&str]); 1] = [("plain", &["burn"])];
    let clean =
        [("lib.rs", "//! .\nmod plain;\nmod free;"), ("plain/mod.rs", "//! burn::x\nuse arrow::x;"), ("free.rs", "//! .\nuse burn::x;")];
    assert!(problems(&super::planted::tree(&clean), &forbidden).is_empty());
    for violation in ["use burn::x;", "use {burn::{x}};", "fn f() { burn::g() }", "type F = Vec<burn::F>;"] {
        let tree = super::planted::with(&clean, "plain/mod.rs", &format!("//! .\n{violation}"));
        super::assert_one(&problems(&tree, &forbidden), "plain must not know burn");
    }
}
