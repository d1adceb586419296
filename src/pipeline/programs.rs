//! The programs of a pipeline's commands: checks that they exist, and finds their files.
//!
//! Knows paths, not the contents of files.

use std::path::{Path, PathBuf};

use super::error::Diagnostic;
use super::paths::local_files;
use super::position::{At, Name};
use super::spec::command::{Argument, Command, Place};

/// The place of a command's program, run in `folder`.
pub(super) fn place(command: &Command, folder: &Path) -> Result<Place, Diagnostic> {
    if let Some(program) = command.run.first() {
        find_program(program, folder).map_err(|problem| Diagnostic::at(program.span, problem))?;
    }
    let mut files = Vec::new();
    for pattern in &command.files {
        files.extend(listed(pattern, folder)?);
    }
    files.sort();
    files.dedup();
    let mut unlisted: Vec<String> = Vec::new();
    for argument in command.run.iter().map(|argument| &argument.value.0) {
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

/// Checks that a program is there: at its path, or in a folder of PATH.
fn find_program(program: &At<Argument>, folder: &Path) -> Result<(), String> {
    let name = &program.value.0;
    if name.is_empty() {
        return Err("expected a program, found an empty text".to_string());
    }
    let path = folder.join(name);
    if name.contains(std::path::is_separator) {
        return match path {
            path if path.is_dir() => Err(format!("expected a program, but \"{name}\" is a directory")),
            path if !path.is_file() => Err(format!("expected a program, but \"{name}\" is not there")),
            path if !is_executable(&path) => Err(format!(
                "expected a program, but \"{name}\" is not executable; name its interpreter before it, or make it executable with chmod +x"
            )),
            _ => Ok(()),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let names = [name.clone(), format!("{name}{}", std::env::consts::EXE_SUFFIX)];
    let is_there = |folder: PathBuf| names.iter().any(|name| folder.join(name).is_file() && is_executable(&folder.join(name)));
    if std::env::split_paths(&folders).any(is_there) {
        return Ok(());
    }
    let hint = if path.is_file() { format!("; for the file of this folder write ./{name}") } else { String::new() };
    Err(format!("expected a program, but \"{name}\" is in no folder of PATH{hint}"))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    true
}
