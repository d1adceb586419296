//! Operators do not know each other. `operators/support/` holds their shared parts.

use super::tree::Tree;
use std::collections::BTreeSet;

/// Imports (from, to) between operators excepted from the rule, with the reason.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// Imports between operators, and allowances without one.
fn problems(tree: &Tree, allowed: &[(&str, &str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for (module, scope) in &tree.scopes {
        let Some(own) = operator(module) else { continue };
        let written = scope.imports.iter().map(|import| &import.path).chain(&scope.paths);
        for path in written {
            let target = tree.resolve(module, path);
            let Some(other) = target.module().and_then(operator).filter(|other| *other != own) else { continue };
            needed.insert((own.to_owned(), other.to_owned()));
            if !allowed.iter().any(|(from, to, _)| *from == own && *to == other) {
                found.push(format!("{}: {own} imports {other} ({})", tree.file_of(scope), path.join("::")));
            }
        }
    }
    let stale = allowed.iter().filter(|(from, to, _)| !needed.contains(&((*from).to_owned(), (*to).to_owned())));
    found.extend(stale.map(|(from, to, _)| format!("stale allowance: {from} does not import {to}")));
    found
}

/// The operator of a module.
fn operator(module: &[String]) -> Option<&str> {
    let (folder, rest) = module.split_first()?;
    let name = rest.first()?;
    (folder == "operators" && name != "support").then_some(name)
}

#[test]
fn operators_do_not_know_each_other() {
    super::assert_tidy(&problems(super::library(), &ALLOWED));
}

#[test]
fn planted_imports_between_operators_are_found() {
    let clean = [
        ("lib.rs", "//! .\nmod operators;"),
        ("operators/mod.rs", "//! .\nmod pair;\nmod support;\nmod train;\npub use train::run;"),
        ("operators/support/mod.rs", "//! .\npub struct Context;"),
        ("operators/pair/mod.rs", "//! .\nmod weight;\nuse super::support::Context;"),
        ("operators/pair/weight.rs", "//! .\nuse super::Pair;"),
        ("operators/train.rs", "//! .\npub fn run() {}"),
    ];
    let tree = super::planted::tree(&clean);
    assert!(problems(&tree, &[]).is_empty());
    super::assert_one(&problems(&tree, &[("pair", "train", "")]), "stale");
    for violation in [
        "use super::super::train;",
        "use crate::operators::{train::run};",
        "use crate::operators::run;",
        "fn f() { super::super::train::run() }",
    ] {
        let tree = super::planted::with(&clean, "operators/pair/weight.rs", &format!("//! .\n{violation}"));
        super::assert_one(&problems(&tree, &[]), "pair imports train");
        assert!(problems(&tree, &[("pair", "train", "")]).is_empty());
    }
}
