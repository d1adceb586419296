//! The files of a process: its program, its working directory, and the files of its fingerprint.
//!
//! Knows paths and hashes, not how a process is started.

use std::fs::File;
use std::path::Path;

use super::address::{Address, unknown_scheme};
use super::error::Diagnostic;
use super::graph::{HashedFile, Process};
use super::paths::local_files;
use super::position::Name;
use super::spec::input::{self as spec, Module, Program, split_function};
use crate::dag::fingerprint::Fingerprint;
use crate::process;

/// A process with its files, hashed.
pub(super) fn find(settings: &spec::Process, folder: &Path) -> Result<Process, Diagnostic> {
    let directory = settings.directory.as_ref().map_or(folder.to_path_buf(), |directory| folder.join(&directory.value));
    if let Some(written) = &settings.directory
        && !directory.is_dir()
    {
        let found = if directory.exists() { "is a file" } else { "is not there" };
        return Err(Diagnostic::at(
            written.span,
            format!("expected the working directory of a process, but \"{}\" {found}", written.value),
        ));
    }
    let mut files = Vec::new();
    match &settings.program {
        Program::Command { command, .. } => command.first().map_or(Ok(()), |program| check_program(program, &directory, "a program"))?,
        Program::Python { function, interpreter, .. } => {
            if let Some((Module::File(file), _)) = split_function(&function.value) {
                files.push(hashed(&Name { value: file.to_string(), span: function.span }, folder.join(file).as_path(), folder)?);
            }
            interpreter.as_ref().map_or(Ok(()), |interpreter| check_program(interpreter, folder, "a Python"))?;
        }
    }
    for written in &settings.files {
        if unknown_scheme(&written.value).is_some() || Address::parse(&written.value).is_some() {
            return Err(Diagnostic::at(written.span, format!("expected a path, found the address \"{}\"", written.value)));
        }
        for path in local_files(written, folder)? {
            files.push(hashed(written, &path, folder)?);
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files.dedup_by(|one, other| one.name == other.name);
    Ok(Process { settings: settings.clone(), directory, folder: folder.to_path_buf(), files })
}

/// Checks that a program is there and can be executed; `expected` is its kind in the error.
pub(super) fn check_program(program: &Name, folder: &Path, expected: &str) -> Result<(), Diagnostic> {
    let name = &program.value;
    if name.is_empty() {
        return Err(Diagnostic::at(program.span, format!("expected {expected}, found an empty text")));
    }
    let problem = match process::find(name, folder) {
        process::Program::Found(_) => return Ok(()),
        process::Program::NotExecutable(path) if path.is_dir() => format!("expected {expected}, but \"{name}\" is a directory"),
        process::Program::NotExecutable(_) => {
            format!("expected {expected}, but \"{name}\" is not executable; run chmod +x on it, or name its interpreter first")
        }
        process::Program::Missing if name.contains('/') => format!("expected {expected}, but \"{name}\" is not there"),
        process::Program::Missing if name.contains(char::is_whitespace) => {
            format!("expected {expected}, but \"{name}\" is not on PATH; give each argument an item of its own")
        }
        process::Program::Missing if folder.join(name).is_file() => {
            format!("expected {expected}, but \"{name}\" is not on PATH; for the file of this folder write ./{name}")
        }
        process::Program::Missing => format!("expected {expected}, but \"{name}\" is not on PATH"),
    };
    Err(Diagnostic::at(program.span, problem))
}

/// A file with its hash.
fn hashed(written: &Name, path: &Path, folder: &Path) -> Result<HashedFile, Diagnostic> {
    let name = path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Diagnostic::at(written.span, format!("expected a file, but \"{name}\" is not there")),
        _ => Diagnostic::at(written.span, format!("cannot read \"{name}\": {error}")),
    };
    Ok(HashedFile { fingerprint: hash(path).map_err(failed)?, path: path.to_path_buf(), name: name.clone() })
}

impl Process {
    /// The first of its files with other bytes than during the check of the pipeline.
    ///
    /// # Errors
    /// A file cannot be read; with its name.
    pub fn changed_file(&self) -> Result<Option<&HashedFile>, String> {
        for file in &self.files {
            let found = hash(&file.path).map_err(|error| format!("{}: {error}", file.name))?;
            if found != file.fingerprint {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

/// The hash of a file's bytes.
fn hash(path: &Path) -> std::io::Result<Fingerprint> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().into())
}
