//! The house's floors: a module imports from floors below its own, or from itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of each module, as in the table of `lib.rs`.
const FLOORS: [(&str, u8); 21] = [
    ("cli", 7),
    ("run", 6),
    ("report", 6),
    ("operators", 5),
    ("import", 4),
    ("tracking", 4),
    ("sql", 3),
    ("generation", 3),
    ("training", 3),
    ("pipeline", 2),
    ("store", 2),
    ("compute", 2),
    ("remote", 2),
    ("tables", 1),
    ("dag", 1),
    ("model", 1),
    ("token_lists", 0),
    ("disk", 0),
    ("memory", 0),
    ("did_you_mean", 0),
    ("catch_panic", 0),
];

/// Crates unknown to a module, as in the table of `lib.rs`.
const FORBIDDEN: [(&str, &[&str]); 16] = [
    ("cli", &["burn"]),
    ("run", &["burn"]),
    ("report", &["burn", "datafusion"]),
    ("import", &["burn", "datafusion"]),
    ("tracking", &["burn", "datafusion"]),
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
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The parts of a file's path under `src`, without the extension.
fn parts(path: &Path) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    path.strip_prefix(&src).unwrap().with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// Every file under `src` but `lib.rs` and `main.rs`: its module, its path, and its code without
/// comments.
fn modules() -> Vec<(String, PathBuf, String)> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let code = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let module = |path: &PathBuf| parts(path).swap_remove(0);
    files.iter().map(|path| (module(path), path.clone(), code(path))).filter(|(name, ..)| name != "lib" && name != "main").collect()
}

/// The names that `code` takes directly from `prefix`, as in `prefix::name` or `prefix::{one::…, other}`.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (start, _) in code.match_indices(prefix) {
        let rest = &code[start + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 1;
        let mut at_start = true;
        for (index, c) in group.char_indices() {
            if at_start && !c.is_whitespace() {
                names.push(word(&group[index..]));
                at_start = false;
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => at_start = depth == 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

#[test]
fn groups_of_imports_are_read() {
    assert_eq!(
        names_after("use crate::{disk, run::{one, two}, sql::Session};\nuse crate::dag::Key;", "crate::"),
        ["disk", "run", "sql", "dag"]
    );
}

#[test]
fn imports_go_down() {
    let floors: BTreeMap<&str, u8> = FLOORS.into();
    for (module, path, code) in modules() {
        let own = *floors.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no floor"));
        for named in names_after(&code, "crate::") {
            let Some(&floor) = floors.get(named.as_str()) else { continue };
            assert!(named == module || floor < own, "{}: {module} (floor {own}) imports {named} (floor {floor})", path.display());
        }
    }
}

#[test]
fn every_floor_has_its_module() {
    let found: std::collections::BTreeSet<String> = modules().into_iter().map(|(module, ..)| module).collect();
    for (module, _) in FLOORS {
        assert!(found.contains(module), "{module} has a floor, but no file");
    }
}

#[test]
fn modules_name_only_the_crates_they_may() {
    let forbidden: BTreeMap<&str, &[&str]> = FORBIDDEN.into();
    for (module, path, code) in modules() {
        for name in forbidden.get(module.as_str()).copied().unwrap_or_default() {
            let used =
                code.contains(&format!("use {name}::")) || code.contains(&format!(" {name}::")) || code.contains(&format!("({name}::"));
            assert!(!used, "{}: {module} must not know {name}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (_, path, _) in modules() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with //!", path.display());
    }
}

#[test]
fn operators_do_not_know_each_other() {
    // `train` lends its loop to `sft`, and `reference` its batch size to `evaluate`; nothing else crosses.
    let operators =
        ["select", "generate", "score", "merge", "pair", "reference", "train", "evaluate", "sft", "reward_model", "rank", "sql"];
    let allowed = [("sft", "train"), ("evaluate", "reference")];
    for (module, path, code) in modules() {
        if module != "operators" {
            continue;
        }
        let parts = parts(&path);
        let own = parts[1].as_str();
        if !operators.contains(&own) {
            continue;
        }
        // `super` leads to the other operators from the operator's own file or from its `mod.rs`;
        // from a file deeper in its folder, `super::super` does.
        let depth = if parts.last().is_some_and(|last| last == "mod") { parts.len() - 2 } else { parts.len() - 1 };
        let siblings = "super::".repeat(depth);
        let named: Vec<String> = [siblings.as_str(), "crate::operators::"].iter().flat_map(|prefix| names_after(&code, prefix)).collect();
        for other in operators.iter().filter(|other| **other != own && !allowed.contains(&(own, **other))) {
            assert!(!named.iter().any(|name| name == other), "{}: {own} imports {other}", path.display());
        }
    }
}
