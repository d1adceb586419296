//! Files of tables from web servers and from S3, in a cache of their own.
//!
//! ```text
//! downloads/<server or bucket>/<hash of the address>/<hash of the version>/<name>
//! ```
//! A file is renamed to its place when it is whole, and never changed there. It keeps its name,
//! because the ending tells the format. Knows nothing of a file's content.

#[cfg(feature = "s3")]
mod credentials;
mod file;
mod place;
#[cfg(feature = "s3")]
mod s3;
mod web;

use std::path::{Path, PathBuf};

use super::error::RemoteError;
use super::stop::Stopped;
use place::Place;
#[cfg(feature = "s3")]
use s3::Bucket;
use web::Web;

pub use file::{Download, PinnedFile};

/// The cache of downloaded files, and what the environment says about servers.
pub struct Downloads {
    folder: PathBuf,
    web: Web,
}

impl Downloads {
    /// The cache that the environment names: OPTUNE_CACHE, else `optune` in the user's folder for
    /// caches. HF_TOKEN is sent to the hub's own address (HF_ENDPOINT) only.
    ///
    /// # Errors
    /// No folder for the cache can be told.
    pub fn from_env(token: Option<(String, String)>) -> Result<Self, RemoteError> {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = path("OPTUNE_CACHE").or_else(|| Some(path("XDG_CACHE_HOME").or_else(dirs::cache_dir)?.join("optune")));
        let folder = folder.ok_or_else(|| RemoteError::Fetch {
            address: "https://".to_string(),
            problem: "expected a folder for downloaded files, found no home directory; set OPTUNE_CACHE".to_string(),
            input: true,
        })?;
        Ok(Self::new(&folder, token))
    }

    /// The cache in `folder`. The token, if there is one, is for addresses that begin with its
    /// first part.
    pub fn new(folder: &Path, token: Option<(String, String)>) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        Self { folder: folder.join("downloads"), web: Web::new(token) }
    }

    /// The file at `url`, from the cache where the server says that it is unchanged; the one of
    /// `pinned` if it is given and still there. `observe` receives the present and the total number
    /// of bytes, as far as the server gives them. `record` is the address in the cache: without
    /// keys, which may differ from time to time.
    ///
    /// # Errors
    /// No such file, no access, no network, or an answer that is no whole file; each with a remedy.
    pub fn web(
        &self,
        url: &str,
        record: &str,
        pinned: Option<&PinnedFile>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Download, RemoteError> {
        let place = Place::of_url(&self.folder, record);
        if let Some(found) = pinned.and_then(|pinned| place.pinned(pinned)) {
            return Ok(found);
        }
        self.web.fetch(url, &place, stopped, observe)
    }

    /// The object of S3 with this key, else all objects of this pattern, in the order of their
    /// keys, from the cache where they are unchanged; exactly those of `pinned` if it is given.
    /// `observe` receives the present and the total number of bytes.
    ///
    /// # Errors
    /// No such bucket or object, no access, no network; each with a remedy.
    #[cfg(feature = "s3")]
    pub fn s3(
        &self,
        bucket: &str,
        keys: &str,
        pinned: Option<&[PinnedFile]>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Download>, RemoteError> {
        let bucket = Bucket::from_env(bucket)?;
        if let Some(pinned) = pinned {
            let found = pinned.iter().map(|file| bucket.place(&self.folder, &file.name).pinned(file));
            if let Some(found) = found.collect() {
                return Ok(found);
            }
        }
        let objects = match pinned {
            Some(pinned) => {
                let lists = pinned.iter().map(|file| bucket.object(&file.name, stopped));
                lists.collect::<Result<Vec<_>, _>>()?
            }
            None => bucket.list(keys, stopped)?,
        };
        let total = objects.iter().map(|object| object.size).sum();
        let mut before = 0;
        let mut found = Vec::with_capacity(objects.len());
        for object in &objects {
            let place = bucket.place(&self.folder, object.location.as_ref());
            found.push(bucket.fetch(object, &place, stopped, &mut |bytes| observe(before + bytes, total))?);
            before += object.size;
        }
        Ok(found)
    }

    /// The present keys and versions of objects of S3; `None` without an answer.
    #[cfg(feature = "s3")]
    pub fn s3_versions(&self, bucket: &str, keys: &str, stopped: Stopped) -> Option<Vec<(String, String)>> {
        let objects = Bucket::from_env(bucket).ok()?.list(keys, stopped).ok()?;
        Some(objects.iter().map(|object| (object.location.to_string(), s3::version(object))).collect())
    }

    /// The present version of the file at `url`, asked for once; `None` without an answer.
    pub fn web_version(&self, url: &str) -> Option<String> {
        self.web.version(url)
    }
}
