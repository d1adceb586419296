//! Finds a program as a shell does: by its path, or by its name on `PATH`.
//!
//! Knows names and permissions, not the kind of a program.

use std::path::{Path, PathBuf};

/// The result of a search for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A file that can be executed.
    Found(PathBuf),
    /// A file that cannot be executed.
    NotExecutable(PathBuf),
    /// No file of this name.
    Missing,
}

/// Finds a program. A name with a `/` is a path from `folder`; any other name is looked up in the
/// folders of `PATH`.
pub fn find(name: &str, folder: &Path) -> Program {
    if name.contains(std::path::MAIN_SEPARATOR) || name.contains('/') {
        return at(folder.join(name));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut refused = Program::Missing;
    for folder in std::env::split_paths(&folders) {
        match at(folder.join(name)) {
            Program::Found(path) => return Program::Found(path),
            Program::NotExecutable(path) if refused == Program::Missing => refused = Program::NotExecutable(path),
            _ => {}
        }
    }
    refused
}

fn at(path: PathBuf) -> Program {
    match path.metadata() {
        Ok(file) if file.is_file() && is_executable(&file) => Program::Found(std::path::absolute(&path).unwrap_or(path)),
        Ok(_) => Program::NotExecutable(path),
        Err(_) => Program::Missing,
    }
}

#[cfg(unix)]
fn is_executable(file: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &std::fs::Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;

    use super::{Program, find};

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(matches!(find("sh", root), Program::Found(path) if path.is_absolute() && path.ends_with("sh")));
        assert_eq!(find("./Cargo.toml", root), Program::NotExecutable(root.join("./Cargo.toml")));
        assert_eq!(find("./src", root), Program::NotExecutable(root.join("./src")));
        assert_eq!(find("./no-such-program", root), Program::Missing);
        assert_eq!(find("no-such-program-of-optune", root), Program::Missing);
    }
}
