//! Whether a file of the cache is whole.
//!
//! Of a file's content it knows only the length in a safetensors header.

use std::path::Path;

use crate::model::has_whole_length;

/// Whether the file `name` lies at `path` with its length: the known length, and of safetensors
/// also the length in the header.
pub(super) fn is_whole(path: &Path, name: &str, size: Option<u64>) -> bool {
    let Ok(found) = path.metadata().map(|metadata| metadata.len()) else { return false };
    size.is_none_or(|size| size == found) && (!name.ends_with(".safetensors") || has_whole_length(path).unwrap_or(false))
}
