//! A downloaded file, and what a run remembers of it.

use std::path::PathBuf;

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Its name on the server, within the address.
    pub name: String,
    /// The server's word for its content: an etag, a date, or else the content's hash.
    pub version: String,
    /// The file.
    pub path: PathBuf,
}

/// An earlier download. It is used again, whatever the server has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedFile {
    /// Its name on the server.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its length.
    pub bytes: u64,
}
