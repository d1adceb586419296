//! A source tree: its files, and the modules in them.

use super::tokens::tokens;
use super::uses::{Scope, scopes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The Rust files under a folder.
pub struct Tree {
    pub files: Vec<SourceFile>,
    /// All modules by their paths, without `crate`. `main.rs` is the module `main`.
    pub scopes: BTreeMap<Vec<String>, Scope>,
}

pub struct SourceFile {
    /// Relative to the tree's folder, with `/`.
    pub path: String,
    pub text: String,
}

impl Tree {
    /// Reads all `.rs` files under a folder, sorted by their paths.
    pub fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        walk(root, &mut paths);
        paths.sort();
        let file = |path: PathBuf| SourceFile {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root).unwrap().iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join("/"),
        };
        let files: Vec<SourceFile> = paths.into_iter().map(file).collect();
        let parsed = files.iter().enumerate().map(|(position, file)| scopes(position, &module(&file.path), &tokens(&file.text)));
        Self { scopes: parsed.flatten().collect(), files }
    }

    /// The path of a module's file.
    pub fn file_of(&self, scope: &Scope) -> &str {
        &self.files[scope.file].path
    }

    /// The modules and files at the top of the tree, without `lib.rs` and `main.rs`.
    pub fn top_modules(&self) -> Vec<&str> {
        let tops = self.scopes.keys().filter(|module| module.len() == 1 && module[0] != "main");
        tops.map(|module| module[0].as_str()).collect()
    }
}

/// `a/mod.rs` and `a.rs` are both the module `a`.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
