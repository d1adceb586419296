//! Floors: a module imports from floors below its own, or from itself.

use super::tree::Tree;
use std::collections::BTreeMap;

/// The floor of each module and root file, as the table in `lib.rs` has it.
const FLOORS: [(&str, u8); 27] = [
    ("cli", 8),
    ("view", 7),
    ("run", 6),
    ("report", 6),
    ("operators", 5),
    ("import", 4),
    ("tracking", 4),
    ("alarm", 4),
    ("sql", 3),
    ("generation", 3),
    ("training", 3),
    ("cluster", 2),
    ("compute", 2),
    ("pipeline", 2),
    ("store", 2),
    ("remote", 2),
    ("tables", 1),
    ("dag", 1),
    ("model", 1),
    ("catch_panic", 0),
    ("did_you_mean", 0),
    ("disk", 0),
    ("memory", 0),
    ("statistics", 0),
    ("process", 0),
    ("token_lists", 0),
    ("win_rates", 0),
];

/// Imports from the same floor or from above, and modules without a floor.
fn problems(tree: &Tree, floors: &[(&str, u8)]) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = floors.iter().copied().collect();
    let mut found: Vec<String> =
        tree.top_modules().into_iter().filter(|top| !floors.contains_key(top)).map(|top| format!("{top} has no floor")).collect();
    let unused = floors.keys().filter(|name| !tree.scopes.contains_key(&vec![(**name).to_owned()]));
    found.extend(unused.map(|name| format!("{name} has a floor, but no file")));
    for (module, scope) in &tree.scopes {
        let Some((own, &floor)) = module.first().and_then(|top| floors.get_key_value(top.as_str())) else { continue };
        let written = scope.imports.iter().map(|import| &import.path).chain(&scope.paths);
        for path in written {
            let absolute = tree.absolute(module, path).unwrap_or_default();
            let Some((other, &other_floor)) = absolute.first().and_then(|top| floors.get_key_value(top.as_str())) else { continue };
            if other != own && other_floor >= floor {
                let file = tree.file_of(scope);
                found.push(format!("{file}: {own} (floor {floor}) imports {} (floor {other_floor})", absolute.join("::")));
            }
        }
    }
    found
}

/// The table of floors in the documentation of `lib.rs`: rows of `| floor | modules |`.
fn documented(text: &str) -> BTreeMap<String, u8> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter_map(|cells| Some((cells.first()?.parse::<u8>().ok()?, (*cells.get(1)?).to_owned())))
        .flat_map(|(floor, modules)| {
            let names = modules.split(", ").map(|name| name.trim_matches(['[', ']', '`', ' ']).to_owned()).collect::<Vec<_>>();
            names.into_iter().map(move |name| (name, floor))
        })
        .collect()
}

/// Differences between the table in `lib.rs` and the floors here.
fn documentation_problems(tree: &Tree, floors: &[(&str, u8)]) -> Vec<String> {
    let text = tree.files.iter().find(|file| file.path == "lib.rs").map_or("", |file| &file.text);
    let documented = documented(text);
    let checked: BTreeMap<String, u8> = floors.iter().map(|(name, floor)| ((*name).to_owned(), *floor)).collect();
    let names = documented.keys().chain(checked.keys()).collect::<std::collections::BTreeSet<_>>();
    let different = names.into_iter().filter(|name| documented.get(*name) != checked.get(*name));
    different.map(|name| format!("{name}: lib.rs has floor {:?}, the test {:?}", documented.get(name), checked.get(name))).collect()
}

#[test]
fn imports_go_down() {
    super::assert_tidy(&problems(super::library(), &FLOORS));
}

#[test]
fn the_table_of_the_documentation_is_the_table_here() {
    super::assert_tidy(&documentation_problems(super::library(), &FLOORS));
}

#[test]
fn planted_imports_upwards_are_found() {
    let floors = [("high", 1), ("low", 0), ("side", 0)];
    let clean = [
        ("lib.rs", "//! | floor | module |\n//! | 1 | [`high`] |\n//! | 0 | `low`, [`side`] |\nmod high;\nmod low;\nmod side;"),
        ("high/mod.rs", "//! .\nmod part;\nuse crate::low::x;"),
        ("high/part.rs", "//! .\nuse super::super::{low::x, side};"),
        ("low/mod.rs", "//! crate::high::x\nmod part;"),
        ("low/part.rs", "//! .\nuse super::x;"),
        ("side.rs", "//! ."),
    ];
    let tree = super::planted::tree(&clean);
    assert!(problems(&tree, &floors).is_empty());
    assert!(documentation_problems(&tree, &floors).is_empty());
    super::assert_one(&documentation_problems(&tree, &[("high", 2), ("low", 0), ("side", 0)]), "high");
    super::assert_one(&problems(&tree, &floors[..2]), "side has no floor");
    super::assert_one(&problems(&tree, &[&floors[..], &[("gone", 0)]].concat()), "gone has a floor, but no file");
    let violations = ["use crate::high::x;", "use crate::{high::x};", "use super::super::{side::x};", "fn f() { crate::side::g() }"];
    for violation in violations {
        let tree = super::planted::with(&clean, "low/part.rs", &format!("//! .\n{violation}"));
        super::assert_one(&problems(&tree, &floors), "low/part.rs: low (floor 0) imports");
    }
}
