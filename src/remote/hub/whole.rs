//! Whether a file of the cache is whole: its length, and the length in a safetensors header.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// A safetensors header is at most this long (as its reader in Rust has it).
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// Whether the file `name` lies at `path` with its length: that which is known, and of safetensors that which the header promises.
pub(super) fn is_whole(path: &Path, name: &str, size: Option<u64>) -> bool {
    let Ok(found) = path.metadata().map(|metadata| metadata.len()) else { return false };
    size.is_none_or(|size| size == found) && (!name.ends_with(".safetensors") || promised(path) == Some(found))
}

/// The length that a safetensors file's header promises: 8 bytes, the header, and the last tensor's end.
fn promised(path: &Path) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER_BYTES {
        return None;
    }
    let mut header = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let ends = header.as_object()?.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    ends.max().unwrap_or(0).checked_add(8 + length)
}
