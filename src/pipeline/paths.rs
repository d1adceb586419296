//! Local files, by a path or by a pattern.
//!
//! Knows names of files, not their use.

use std::path::{Path, PathBuf};

use super::address::unknown_scheme;
use super::error::Diagnostic;
use super::position::Name;

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
        return Err(diagnostic(format!("expected a file, but \"{}\" is not there", written.value)));
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
