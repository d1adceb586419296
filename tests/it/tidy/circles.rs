//! No circles between files: a file never uses an item of a file with a use of its own items.
//!
//! `pub use child::Item` is no use, unless the file also has the name in its code. Paths through
//! re-exports count for the file with the definition. Unit tests (`mod tests`) may use any file.

use super::resolve::Target;
use super::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// Uses (from, to) excepted from the rule, with the reason. Without them there is no circle.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// The uses between files: from, to, and the names of the used items.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>;

fn graph(tree: &Tree) -> Graph<'_> {
    let mut graph: Graph<'_> = tree.files.iter().map(|file| (file.path.as_str(), BTreeMap::new())).collect();
    let macros: BTreeMap<&str, &str> = tree
        .scopes
        .values()
        .flat_map(|scope| scope.defined.iter().filter_map(|name| Some((name.strip_suffix('!')?, tree.file_of(scope)))))
        .collect();
    let product = tree.scopes.iter().filter(|(module, _)| module.last().is_none_or(|name| name != "tests"));
    for (module, scope) in product {
        let file = tree.file_of(scope);
        let uses = graph.entry(file).or_default();
        for target in targets(tree, module) {
            let Target::Item(source, item) = target else { continue };
            uses.entry(tree.file_of(&tree.scopes[&source])).or_default().insert(item);
        }
        for name in &scope.invoked {
            if let Some(source) = macros.get(name.as_str()) {
                uses.entry(source).or_default().insert(format!("{name}!"));
            }
        }
        uses.remove(file);
    }
    graph
}

/// The targets of a module's imports and paths.
fn targets(tree: &Tree, module: &[String]) -> Vec<Target> {
    let scope = &tree.scopes[module];
    let mut found: Vec<Target> = scope.paths.iter().map(|path| tree.resolve(module, path)).collect();
    for import in &scope.imports {
        let target = tree.resolve(module, &import.path);
        match (import.name.as_str(), &target) {
            ("*", Target::Module(source)) => found.extend(scope.words.iter().filter_map(|word| tree.named(source, word, 8))),
            _ if import.public && !scope.words.contains(&import.name) => {}
            _ => found.push(target),
        }
    }
    found
}

/// Whether uses lead from one file to another.
fn reaches(graph: &Graph<'_>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if *next == to {
                return true;
            }
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    false
}

/// The circles, and the allowances without one.
fn problems(tree: &Tree, allowed: &[(&str, &str, &str)]) -> Vec<String> {
    let full = graph(tree);
    let stale =
        |(from, to, _): &&(&str, &str, &str)| !full.get(from).is_some_and(|uses| uses.contains_key(to)) || !reaches(&full, to, from);
    let mut found: Vec<String> =
        allowed.iter().filter(stale).map(|(from, to, _)| format!("stale allowance: {from} → {to} closes no circle")).collect();
    let mut left = full.clone();
    for (from, to, _) in allowed {
        left.entry(from).or_default().remove(to);
    }
    let circular: BTreeSet<&str> = left.keys().copied().filter(|file| reaches(&left, file, file)).collect();
    for file in &circular {
        for (to, items) in left[file].iter().filter(|(to, _)| reaches(&left, to, file)) {
            let items = items.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            found.push(format!("circle: {file} → {to} ({items})"));
        }
    }
    found
}

#[test]
fn no_file_uses_itself_through_others() {
    super::assert_tidy(&problems(super::library(), &ALLOWED));
}

#[test]
fn planted_circles_are_found() {
    let clean = [
        ("lib.rs", "//! .\nmod a;"),
        ("a/mod.rs", "//! .\nmod b;\nmod c;\npub use c::C;"),
        ("a/b.rs", "//! .\nuse super::C;"),
        ("a/c.rs", "//! .\npub struct C;"),
    ];
    let tree = super::planted::tree(&clean);
    assert!(problems(&tree, &[]).is_empty());
    super::assert_one(&problems(&tree, &[("a/b.rs", "a/c.rs", "")]), "stale");
    let direct = super::planted::with(&clean, "a/c.rs", "//! .\npub struct C;\nfn f() { super::b::g() }");
    let found = problems(&direct, &[]);
    assert_eq!(found, ["circle: a/b.rs → a/c.rs (C)", "circle: a/c.rs → a/b.rs (g)"]);
    assert!(problems(&direct, &[("a/c.rs", "a/b.rs", "")]).is_empty());
    let parent = super::planted::with(&clean, "a/mod.rs", "//! .\nmod b;\nmod c;\npub struct C;\nfn f() { b::g() }");
    assert_eq!(problems(&parent, &[]).len(), 2);
}
