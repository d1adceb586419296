//! The scripts of `tests/python/` and their packages.

use std::fs;

use crate::fixtures::python::{imports, missing_packages, scripts};

/// The modules of Python's standard library in use.
const STANDARD: &[&str] = &[
    "argparse",
    "asyncio",
    "collections",
    "copy",
    "csv",
    "datetime",
    "decimal",
    "hashlib",
    "http",
    "importlib",
    "inspect",
    "io",
    "json",
    "logging",
    "math",
    "os",
    "pathlib",
    "random",
    "re",
    "shutil",
    "signal",
    "ssl",
    "statistics",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "uuid",
];

#[test]
fn every_package_that_a_script_imports_is_required_with_its_version() {
    let requirements = fs::read_to_string(scripts().join("requirements.txt")).unwrap();
    // A module is called as its package, but for these marks.
    let module = |package: &str| package.split('[').next().unwrap().trim_end_matches("-binary").replace('-', "_");
    let pinned: Vec<String> = requirements.lines().filter_map(|line| line.split_once("==")).map(|(package, _)| module(package)).collect();
    let mut count = 0;
    for entry in fs::read_dir(scripts()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "py") {
            continue;
        }
        count += 1;
        for module in imports(&fs::read_to_string(&path).unwrap()) {
            let is_beside = scripts().join(format!("{module}.py")).exists();
            let is_known = is_beside || STANDARD.contains(&module.as_str()) || pinned.contains(&module);
            assert!(is_known, "{} imports {module}, which requirements.txt does not pin", path.display());
        }
    }
    assert!(count >= 12, "only {count} scripts");
}

#[test]
fn a_missing_package_is_named_with_the_command_that_installs_it() {
    assert_eq!(
        imports("import torch, json as j\nfrom pyarrow.dataset import x\n    import trl.data\nimport torch\n"),
        ["torch", "json", "pyarrow", "trl"]
    );
    let error = missing_packages("event_files.py", &["tensorboard".to_string()]);
    assert!(error.contains("needs tensorboard,") && error.contains("pip install -r tests/python/requirements.txt"), "{error}");
}
