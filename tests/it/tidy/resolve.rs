//! Paths resolved within a tree: `crate`, `self`, `super`, child modules, imports and re-exports.

use super::tree::Tree;
use super::uses::Scope;

/// The longest chain of re-exports followed.
const DEEPEST: usize = 16;

/// The target of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A module of the tree.
    Module(Vec<String>),
    /// An item, and the module with its definition.
    Item(Vec<String>, String),
    /// A name from another crate, or from the language.
    Outside(String),
}

impl Target {
    /// The module with the target; `None` outside of the tree.
    pub fn module(&self) -> Option<&[String]> {
        match self {
            Self::Module(module) | Self::Item(module, _) => Some(module),
            Self::Outside(_) => None,
        }
    }
}

impl Tree {
    /// The definition behind a path written in `module`. Follows re-exports.
    pub fn resolve(&self, module: &[String], path: &[String]) -> Target {
        self.follow(module, path, DEEPEST)
    }

    /// The path from the root of the tree, as written; `None` if it starts at an import or outside.
    pub fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (mut start, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.to_vec(), &path[1..]),
            "super" => (module.to_vec(), path),
            child if self.scopes[module].children.contains(child) => (module.to_vec(), path),
            _ => return None,
        };
        while rest.first().is_some_and(|word| word == "super") {
            start.pop();
            rest = &rest[1..];
        }
        start.extend_from_slice(rest);
        Some(start)
    }

    fn follow(&self, module: &[String], path: &[String], left: usize) -> Target {
        let Some(absolute) = self.absolute(module, path) else {
            let first = &path[0];
            if self.scopes[module].defined.contains(first) {
                return Target::Item(module.to_vec(), first.clone());
            }
            return match self.imported(module, first, left) {
                Some(Target::Module(start)) => self.descend(start, &path[1..], left),
                Some(item) => item,
                None => Target::Outside(first.clone()),
            };
        };
        self.descend(Vec::new(), &absolute, left)
    }

    /// From a module to the definition of the rest of a path.
    fn descend(&self, mut module: Vec<String>, rest: &[String], left: usize) -> Target {
        for (position, name) in rest.iter().enumerate() {
            let scope = &self.scopes[&module];
            let mut child = module.clone();
            child.push(name.clone());
            if self.scopes.contains_key(&child) {
                module = child;
            } else if scope.defined.contains(name) {
                return Target::Item(module, name.clone());
            } else {
                return match self.imported(&module, name, left) {
                    Some(Target::Module(start)) => self.descend(start, &rest[position + 1..], left),
                    Some(target) => target,
                    None => Target::Item(module, name.clone()),
                };
            }
        }
        Target::Module(module)
    }

    /// The target of a name brought into a module by `use`.
    fn imported(&self, module: &[String], name: &str, left: usize) -> Option<Target> {
        let left = left.checked_sub(1)?;
        let scope = &self.scopes[module];
        if let Some(import) = scope.imports.iter().find(|import| import.name == name && import.path != [name.to_owned()]) {
            return Some(self.follow(module, &import.path, left));
        }
        scope.imports.iter().filter(|import| import.name == "*").find_map(|glob| {
            let Target::Module(source) = self.follow(module, &glob.path, left) else { return None };
            (source != module).then(|| self.named(&source, name, left)).flatten()
        })
    }

    /// The target of a name of a module, defined there or imported.
    pub fn named(&self, module: &[String], name: &str, left: usize) -> Option<Target> {
        let scope: &Scope = &self.scopes[module];
        if scope.defined.contains(name) {
            return Some(Target::Item(module.to_vec(), name.to_owned()));
        }
        self.imported(module, name, left).filter(|target| target.module().is_some())
    }
}
