//! The small files of a model directory, read whole, up to a length. Knows nothing of their
//! content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::ModelError;

/// Far above any configuration, tokenizer or template; beyond it a file is taken to be something
/// else under that name.
pub(super) const LARGEST_BYTES: u64 = 1 << 28;

/// How a pointer of Git LFS begins. It stands in place of a large file that was not fetched.
/// Format: <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The problem of a file with this beginning, if it is a pointer of Git LFS.
pub(super) fn lfs_problem(beginning: &[u8]) -> Option<&'static str> {
    beginning.starts_with(LFS_POINTER).then_some("found a Git LFS pointer in place of the file; fetch the file with `git lfs pull`")
}

/// The bytes of a file; a longer one is refused before it is in memory, and so is a pointer of Git
/// LFS.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A device or a pipe says nothing of its length.
    File::open(path)?.take(LARGEST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_BYTES {
        return Err(io::Error::other(format!("expected a file of at most {LARGEST_BYTES} bytes, found a longer one")));
    }
    if let Some(problem) = lfs_problem(&bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(bytes)
}

/// The text of a file.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "expected text in UTF-8, found other bytes"))
}

/// The JSON value in a file.
///
/// # Errors
/// When the file cannot be read or is no JSON.
pub(super) fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = read_text(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
    serde_json::from_str(&text).map_err(|error| ModelError::invalid(path, error))
}
