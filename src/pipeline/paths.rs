//! Local files, by a path or by a pattern; and paths from one folder to another.
//!
//! Knows names of files, not their use.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::address::unknown_scheme;
use super::error::Diagnostic;
use super::position::Name;

/// The folder of a pipeline file, where its relative paths start; empty for the working directory.
/// A symbolic link to a file is in the folder of the link.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// The folder where the paths of a pipeline file in `folder` start, and programs run.
pub(super) fn base(written: Option<&Name>, folder: &Path) -> Result<PathBuf, Diagnostic> {
    let Some(written) = written else { return Ok(folder.to_path_buf()) };
    let base = beneath(folder, Path::new(&written.value));
    if base.as_os_str().is_empty() || base.is_dir() {
        return Ok(base);
    }
    let found = if base.exists() { "is a file" } else { "is not there" };
    Err(Diagnostic::at(written.span, format!("expected a folder, but \"{}\" {found}", written.value)))
}

/// A path from a folder, without the detours of `..`. A folder behind a symbolic link has another
/// parent than the link, so there the detour stays.
fn beneath(folder: &Path, path: &Path) -> PathBuf {
    let mut joined = folder.to_path_buf();
    for component in path.components() {
        let ends_in_a_name = matches!(joined.components().next_back(), Some(Component::Normal(_)));
        match component {
            Component::CurDir => {}
            Component::ParentDir if ends_in_a_name && !joined.is_symlink() => {
                joined.pop();
            }
            component => joined.push(component),
        }
    }
    joined
}

/// The path of a folder as seen from another, which need not exist; absolute where there is none.
///
/// # Errors
/// `folder` is not there, or the working directory is unknown.
pub fn seen_from(folder: &Path, viewpoint: &Path) -> io::Result<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder.canonicalize()?;
    let viewpoint = std::path::absolute(viewpoint)?;
    let Some(there) = viewpoint.ancestors().find(|ancestor| ancestor.exists()) else { return Ok(folder) };
    // Without its links, so that `..` leads to the parents of this path.
    let viewpoint = there.canonicalize()?.join(viewpoint.strip_prefix(there).unwrap_or(Path::new("")));
    let mut to = folder.components().peekable();
    let mut from = viewpoint.components().peekable();
    if to.peek() != from.peek() {
        return Ok(folder);
    }
    while to.peek().is_some() && to.peek() == from.peek() {
        to.next();
        from.next();
    }
    let up = from.map(|_| OsStr::new(".."));
    let path: PathBuf = up.chain(to.map(Component::as_os_str)).collect();
    Ok(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path })
}

/// The advice for a path that the working directory has and the folder of the file has not.
pub(super) fn advice(written: &str, folder: &Path) -> String {
    let path = Path::new(written);
    let is_elsewhere = path.is_relative() && !folder.as_os_str().is_empty() && path.exists();
    match is_elsewhere.then(|| std::env::current_dir().and_then(|here| seen_from(&here, folder))) {
        Some(Ok(here)) => {
            format!("; paths start from {}, not from the working directory: write \"{}\"", folder.display(), here.join(path).display())
        }
        _ => String::new(),
    }
}

/// The file of this path, or all files of this pattern.
pub(super) fn local_files(written: &Name, folder: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let diagnostic = |problem: String| Diagnostic::at(written.span, problem);
    let path = folder.join(&written.value);
    if path.is_file() {
        return Ok(vec![path]);
    }
    if path.is_dir() {
        return Err(diagnostic(format!("expected a file, but \"{}\" is a directory; to read all in it, end with /*", written.value)));
    }
    if let Some(scheme) = unknown_scheme(&written.value) {
        return Err(diagnostic(format!("expected a path, hf://datasets/…, https://… or s3://…, found an address with {scheme}://")));
    }
    if !written.value.contains(['*', '?', '[']) {
        let advice = advice(&written.value, folder);
        return Err(diagnostic(format!("expected a file, but \"{}\" is not there{advice}", written.value)));
    }
    let pattern = Path::new(&glob::Pattern::escape(&folder.to_string_lossy())).join(&written.value);
    let paths = glob::glob(&pattern.to_string_lossy())
        .map_err(|error| diagnostic(format!("\"{}\" is no pattern of file names: {}", written.value, error.msg)))?;
    let paths = paths.collect::<Result<Vec<_>, _>>().map_err(|error| diagnostic(format!("\"{}\": {error}", written.value)))?;
    let files: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_file()).collect();
    if files.is_empty() {
        return Err(diagnostic(format!("expected files, but none fits \"{}\"", written.value)));
    }
    Ok(files)
}
