//! The house's floors: a module imports from floors below its own, or from itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of each module, as the table in `lib.rs` has it.
const FLOORS: [(&str, u8); 17] = [
    ("cli", 6),
    ("run", 5),
    ("report", 5),
    ("stages", 4),
    ("serve", 3),
    ("tracking", 3),
    ("pipeline", 2),
    ("store", 2),
    ("generation", 3),
    ("training", 3),
    ("compute", 2),
    ("remote", 2),
    ("tables", 1),
    ("dag", 1),
    ("model", 1),
    ("contained", 0),
    ("disk", 0),
];

/// Crates that a module must not name, as the table in `lib.rs` has it.
const FORBIDDEN: [(&str, &[&str]); 14] = [
    ("cli", &["burn"]),
    ("report", &["burn", "datafusion"]),
    ("pipeline", &["arrow", "burn", "datafusion", "parquet"]),
    ("store", &["burn"]),
    ("serve", &["burn"]),
    ("tracking", &["burn", "datafusion"]),
    ("generation", &["arrow", "datafusion"]),
    ("training", &["arrow", "datafusion"]),
    ("remote", &["arrow", "burn", "datafusion", "parquet"]),
    ("tables", &["burn", "datafusion", "parquet"]),
    ("dag", &["arrow", "burn", "datafusion"]),
    ("model", &["arrow", "datafusion"]),
    ("disk", &["arrow", "burn", "datafusion", "parquet"]),
    ("compute", &["arrow", "datafusion"]),
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

/// The module of a file under `src`, and its code without comments.
fn modules() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let module = |path: &PathBuf| path.strip_prefix(&src).unwrap().iter().next().unwrap().to_string_lossy().into_owned();
    let code = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    files.iter().filter(|path| path.parent() != Some(&src)).map(|path| (module(path), path.clone(), code(path))).collect()
}

#[test]
fn imports_go_down() {
    let floors: BTreeMap<&str, u8> = FLOORS.into();
    for (module, path, code) in modules() {
        let own = *floors.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no floor"));
        for named in code.split("crate::").skip(1) {
            let named: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(&floor) = floors.get(named.as_str()) else { continue };
            assert!(named == module || floor < own, "{}: {module} (floor {own}) imports {named} (floor {floor})", path.display());
        }
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
fn stages_do_not_know_each_other() {
    // `train` lends its loop to `sft`, and `reference` its batch size to `evaluate`; nothing else crosses.
    let operators =
        ["select", "generate", "score", "merge", "pair", "reference", "train", "evaluate", "sft", "reward_model", "rank", "sql"];
    let allowed = [("sft", "train"), ("evaluate", "reference")];
    for (module, path, code) in modules() {
        let own = path.file_stem().unwrap().to_string_lossy().into_owned();
        if module != "stages" || !operators.contains(&own.as_str()) {
            continue;
        }
        for other in operators.iter().filter(|other| **other != own && !allowed.contains(&(own.as_str(), **other))) {
            assert!(!code.contains(&format!("super::{other}::")), "{}: {own} imports {other}", path.display());
        }
    }
}
