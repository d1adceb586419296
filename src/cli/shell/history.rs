//! The place of the shell's history: the system's folder for a program's state, in a file readable
//! only by its user.

use std::path::{Path, PathBuf};

/// The history's file, its folder made; none where the system names no such folder or it cannot be
/// made.
pub(super) fn file() -> Option<PathBuf> {
    let folder = dirs::state_dir().or_else(dirs::data_local_dir)?.join("optune");
    make(&folder).ok()?;
    Some(folder.join("sql_history"))
}

#[cfg(unix)]
fn make(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}
