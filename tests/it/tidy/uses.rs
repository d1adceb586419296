//! The paths of a file: `use` declarations with nested braces, and paths in code.
//!
//! Knows no other file: `super` and names of imports are resolved by [`super::resolve`].

use super::tokens::Token;
use std::collections::{BTreeMap, BTreeSet};

/// A module and its path: a file, or a `mod name { … }` in it.
#[derive(Debug, Default)]
pub struct Scope {
    /// The position of the file in the tree.
    pub file: usize,
    /// Modules declared in it.
    pub children: BTreeSet<String>,
    /// Names of items defined in it.
    pub defined: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// Paths outside `use`.
    pub paths: Vec<Vec<String>>,
    /// Words outside `use`.
    pub words: BTreeSet<String>,
    /// Invoked macros.
    pub invoked: BTreeSet<String>,
}

/// One leaf of a `use` declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// As written, with braces resolved. Without the `*` of a glob.
    pub path: Vec<String>,
    /// The name in the module; `*` for a glob.
    pub name: String,
    pub public: bool,
}

/// The scopes of a file by their module paths.
pub fn scopes(file: usize, module: &[String], tokens: &[Token]) -> BTreeMap<Vec<String>, Scope> {
    let mut parser = Parser { file, tokens, at: 0, modules: vec![(module.to_vec(), 0)], depth: 0, found: BTreeMap::new() };
    parser.scope();
    while parser.at < tokens.len() {
        parser.step();
    }
    parser.found
}

struct Parser<'a> {
    file: usize,
    tokens: &'a [Token],
    at: usize,
    /// The open modules, with the depth of braces in each.
    modules: Vec<(Vec<String>, usize)>,
    depth: usize,
    found: BTreeMap<Vec<String>, Scope>,
}

impl Parser<'_> {
    fn scope(&mut self) -> &mut Scope {
        let (module, _) = self.modules.last().expect("the file's own module stays");
        let file = self.file;
        self.found.entry(module.clone()).or_insert_with(|| Scope { file, ..Scope::default() })
    }

    fn word(&self, at: usize) -> Option<&str> {
        if let Some(Token::Word(word)) = self.tokens.get(at) { Some(word) } else { None }
    }

    fn is(&self, at: usize, mark: char) -> bool {
        self.tokens.get(at) == Some(&Token::Mark(mark))
    }

    fn step(&mut self) {
        let Some(word) = self.word(self.at).map(str::to_owned) else {
            self.mark();
            return;
        };
        let next = self.word(self.at + 1).map(str::to_owned);
        match (word.as_str(), next) {
            ("use", _) if !self.is(self.at + 1, '<') => self.import(),
            ("mod", Some(name)) => self.module(name),
            ("fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union", Some(name)) => {
                let top = self.modules.last().is_some_and(|(_, depth)| *depth == self.depth);
                let name = if name == "fn" || name == "mut" { self.word(self.at + 2).unwrap_or_default().to_owned() } else { name };
                if top {
                    self.scope().defined.insert(name);
                }
                self.at += 1;
            }
            ("macro_rules", None) if self.is(self.at + 1, '!') => {
                let name = self.word(self.at + 2).unwrap_or_default().to_owned();
                self.scope().defined.insert(format!("{name}!"));
                self.at += 3;
            }
            _ => self.path(word),
        }
    }

    fn mark(&mut self) {
        if self.is(self.at, '{') {
            self.depth += 1;
        }
        if self.is(self.at, '}') {
            self.depth = self.depth.saturating_sub(1);
            if self.modules.len() > 1 && self.modules.last().is_some_and(|(_, depth)| *depth > self.depth) {
                self.modules.pop();
            }
        }
        self.at += 1;
    }

    /// `mod name;` or `mod name {`.
    fn module(&mut self, name: String) {
        self.scope().children.insert(name.clone());
        self.at += 2;
        if self.is(self.at, '{') {
            self.at += 1;
            self.depth += 1;
            let mut module = self.modules.last().map(|(module, _)| module.clone()).unwrap_or_default();
            module.push(name);
            self.modules.push((module, self.depth));
            self.scope();
        }
    }

    /// A path in code, or a single word.
    fn path(&mut self, first: String) {
        let continues = self.at > 0 && self.tokens[self.at - 1] == Token::Separator;
        let mut path = vec![first];
        self.at += 1;
        while self.tokens.get(self.at) == Some(&Token::Separator) {
            let Some(word) = self.word(self.at + 1).map(str::to_owned) else { break };
            path.push(word);
            self.at += 2;
        }
        let invoked = self.is(self.at, '!') && !self.is(self.at + 1, '=');
        let scope = self.scope();
        scope.words.insert(path[0].clone());
        if invoked && path.len() == 1 {
            scope.invoked.insert(path[0].clone());
        }
        if path.len() > 1 && !continues {
            scope.paths.push(path);
        }
    }

    fn import(&mut self) {
        let public = self.at > 0 && (self.word(self.at - 1) == Some("pub") || self.is(self.at - 1, ')'));
        self.at += 1;
        if self.tokens.get(self.at) == Some(&Token::Separator) {
            self.at += 1;
        }
        self.branch(&[], public);
    }

    /// One branch of a `use` tree, after `prefix`.
    fn branch(&mut self, prefix: &[String], public: bool) {
        let mut path = prefix.to_vec();
        loop {
            if self.is(self.at, '{') {
                self.at += 1;
                while !self.is(self.at, '}') && self.at < self.tokens.len() {
                    self.branch(&path, public);
                    if self.is(self.at, ',') {
                        self.at += 1;
                    }
                }
                self.at += 1;
                return;
            }
            if self.is(self.at, '*') {
                self.at += 1;
                self.scope().imports.push(Import { path, name: "*".to_owned(), public });
                return;
            }
            // A macro's `$name` and other marks end the branch.
            let Some(word) = self.word(self.at).map(str::to_owned) else {
                self.at += 1;
                return;
            };
            self.at += 1;
            // `{self}` names its prefix.
            if word != "self" || path.is_empty() {
                path.push(word);
            }
            if self.tokens.get(self.at) == Some(&Token::Separator) {
                self.at += 1;
                continue;
            }
            let mut name = path.last().cloned().unwrap_or_default();
            if self.word(self.at) == Some("as") {
                name = self.word(self.at + 1).unwrap_or("_").to_owned();
                self.at += 2;
            }
            self.scope().imports.push(Import { path, name, public });
            return;
        }
    }
}

#[test]
fn nested_braces_renames_and_globs_are_paths() {
    let code = "use crate::{a::{self, b as c}, d}; pub use super::e::*; mod f { use self::g; } fn h() { i::j(k::<l>()) }";
    let found = scopes(0, &["m".to_owned()], &super::tokens::tokens(code));
    let written = |scope: &Scope| {
        scope.imports.iter().map(|import| format!("{} as {}", import.path.join("::"), import.name)).collect::<Vec<_>>().join(", ")
    };
    let outer = &found[&vec!["m".to_owned()]];
    assert_eq!(written(outer), "crate::a as a, crate::a::b as c, crate::d as d, super::e as *");
    assert_eq!(written(&found[&vec!["m".to_owned(), "f".to_owned()]]), "self::g as g");
    assert_eq!(outer.paths, [["i", "j"]]);
    assert!(outer.imports[3].public && !outer.imports[2].public && outer.children.contains("f") && outer.defined.contains("h"));
}
