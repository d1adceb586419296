//! The places of one address in the cache: a folder a version, a file on its way, and a lock.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::super::error::RemoteError;
use super::super::partial_file;
use super::super::stop::Stopped;
use super::file::{Download, PinnedFile};

/// The length of a hash in a folder's name.
const HASH_CHARACTERS: usize = 16;
/// The name of a file whose address ends without one.
const UNNAMED: &str = "table";

/// The place of the files of one address.
pub(super) struct Place {
    folder: PathBuf,
    name: String,
}

impl Place {
    /// The place of a web server's file.
    pub(super) fn of_url(cache: &Path, url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = rest.split('?').next().unwrap_or_default();
        let server = rest.split('/').next().unwrap_or_default();
        Self::new(cache, server, url, rest.rsplit('/').next().unwrap_or_default())
    }

    /// The place of an object of S3. Another server may have a bucket of the same name.
    #[cfg(feature = "s3")]
    pub(super) fn of_object(cache: &Path, endpoint: &str, bucket: &str, key: &str) -> Self {
        Self::new(cache, &format!("s3-{bucket}"), &format!("{endpoint} s3://{bucket}/{key}"), key.rsplit('/').next().unwrap_or_default())
    }

    fn new(cache: &Path, server: &str, address: &str, name: &str) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
        let tame = |text: &str| text.chars().map(|c| if plain(c) { c } else { '_' }).collect::<String>();
        let name = tame(name);
        let name = if name.trim_matches('.').is_empty() { UNNAMED.to_string() } else { name };
        Self { folder: cache.join(tame(server)).join(hash(address)), name }
    }

    /// The name of the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The file with this version.
    pub(super) fn file(&self, version: &str) -> PathBuf {
        self.folder.join(hash(version)).join(&self.name)
    }

    /// The file with this version as far as it is there.
    pub(super) fn partial(&self, version: &str) -> PathBuf {
        self.folder.join(format!("{}.incomplete", hash(version)))
    }

    /// The earlier download, if it is still there.
    pub(super) fn pinned(&self, pinned: &PinnedFile) -> Option<Download> {
        let path = self.file(&pinned.version);
        let is_there = path.metadata().is_ok_and(|metadata| metadata.len() == pinned.bytes);
        is_there.then(|| Download { name: pinned.name.clone(), version: pinned.version.clone(), path })
    }

    /// Waits until no other process fetches from the same address.
    pub(super) fn lock(&self, stopped: Stopped, failed: &dyn Fn(io::Error) -> RemoteError) -> Result<File, RemoteError> {
        partial_file::lock(&self.folder.join(".lock"), stopped, failed)
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(HASH_CHARACTERS).collect()
}
