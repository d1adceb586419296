//! The programs of a pipeline's nodes: checks that they exist, and finds their files.
//!
//! Knows paths, not the contents of files.

use std::path::{Path, PathBuf};

use super::error::Diagnostic;
use super::paths::local_files;
use super::position::{At, Name};
use super::process_files::check_program;
use super::spec::command::{Argument, Place};

/// The place of a program, run in `folder`: of its `words`, and of the files in these `patterns`.
pub(super) fn place(words: &[At<Argument>], patterns: &[Name], folder: &Path) -> Result<Place, Diagnostic> {
    if let Some(program) = words.first() {
        check_program(&Name { value: program.value.0.clone(), span: program.span }, folder, "a program")?;
    }
    let mut files = Vec::new();
    for pattern in patterns {
        files.extend(listed(pattern, folder)?);
    }
    files.sort();
    files.dedup();
    let mut unlisted: Vec<String> = Vec::new();
    for argument in words.iter().map(|argument| &argument.value.0) {
        let path = folder.join(argument);
        let is_own = Path::new(argument).is_relative() && argument.contains(['/', '.']) && path.is_file();
        if is_own && !files.iter().any(|(_, file)| same(file, &path)) && !unlisted.contains(argument) {
            unlisted.push(argument.clone());
        }
    }
    Ok(Place { folder: folder.to_path_buf(), files, unlisted })
}

/// The files of a pattern, each with its path within the folder.
fn listed(pattern: &Name, folder: &Path) -> Result<Vec<(String, PathBuf)>, Diagnostic> {
    let named = |path: PathBuf| (path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned(), path);
    Ok(local_files(pattern, folder)?.into_iter().map(named).collect())
}

/// Whether two paths lead to one file.
fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
