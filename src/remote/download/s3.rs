//! Objects of an S3 bucket: listed, asked for, and continued where they were cut.
//!
//! The requests, their signatures and their repetition are object_store's.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use glob::{MatchOptions, Pattern};
use object_store::aws::{AmazonS3, AmazonS3ConfigKey, resolve_bucket_region};
use object_store::path::Path as Key;
use object_store::{ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::super::attempts::{RETRIES, TIMEOUT, Trouble, until_whole};
use super::super::error::RemoteError;
use super::super::stop::{LOOK, Stopped};
use super::credentials::{Credentials, HINT};
use super::file::{Download, PinnedFile};
use super::place::Place;

/// The limit for accepting a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one request is repeated.
const REPEAT: Duration = Duration::from_secs(60);
/// Objects of one pattern, at most.
const MOST_OBJECTS: usize = 100_000;
/// The shown length of a server's answer in an error.
const SHOWN_CHARACTERS: usize = 300;
/// `*` ends at a `/`, as in local patterns.
const MATCHING: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// A bucket, with the credentials of the environment.
pub(super) struct Bucket {
    store: AmazonS3,
    runtime: Runtime,
    /// The name.
    name: String,
    /// The server, if it is not Amazon's.
    endpoint: String,
    has_credentials: bool,
}

impl Bucket {
    /// The bucket as the environment describes its server: the variables AWS_* that object_store
    /// reads, and the user's AWS files for what they leave out.
    pub(super) fn from_env(name: &str) -> Result<Self, RemoteError> {
        let failed = |problem: String| RemoteError::Fetch { address: format!("s3://{name}"), problem, input: false };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        let Credentials { builder, are_known } = Credentials::from_env();
        let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint].iter().find_map(|key| builder.get_config_value(key));
        let endpoint = endpoint.unwrap_or_default();
        let options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(TIMEOUT * 60);
        let has_region = [AmazonS3ConfigKey::Region, AmazonS3ConfigKey::DefaultRegion].iter().any(|key| {
            // The default is no choice of the user's.
            builder.get_config_value(key).is_some_and(|region| !region.is_empty())
        });
        let mut builder = builder.with_bucket_name(name);
        if endpoint.is_empty() && !has_region {
            // Without an answer the default region is tried; its error then names the bucket.
            if let Ok(region) = runtime.block_on(resolve_bucket_region(name, &options)) {
                builder = builder.with_region(region);
            }
        }
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: REPEAT, ..RetryConfig::default() };
        // An address with http:// was set by the user.
        let options = if endpoint.starts_with("http://") { options.with_allow_http(true) } else { options };
        let store = builder.with_client_options(options).with_retry(retry).build().map_err(|error| failed(error.to_string()))?;
        Ok(Self { store, runtime, name: name.to_string(), endpoint, has_credentials: are_known })
    }

    /// The place of an object in the cache.
    pub(super) fn place(&self, cache: &std::path::Path, key: &str) -> Place {
        Place::of_object(cache, &self.endpoint, &self.name, key)
    }

    /// The object with this key, else all objects of this pattern, in the order of their keys.
    pub(super) fn list(&self, keys: &str, stopped: Stopped) -> Result<Vec<ObjectMeta>, RemoteError> {
        let address = format!("s3://{}/{keys}", self.name);
        let failed = |error: Error| self.problem(&address, &error);
        if !keys.contains(['*', '?', '[']) {
            return Ok(vec![self.object(keys, stopped)?]);
        }
        let pattern = Pattern::new(keys).map_err(|error| fetch_error(&address, error.msg.to_string(), true))?;
        let fixed = keys.split(['*', '?', '[']).next().unwrap_or_default();
        let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = Key::parse(folder).map_err(|error| failed(error.into()))?;
        let listed = self.store.list(Some(&folder)).try_filter(|object| {
            let is_wanted = pattern.matches_with(object.location.as_ref(), MATCHING);
            futures::future::ready(is_wanted)
        });
        let mut found: Vec<ObjectMeta> = self.wait(listed.take(MOST_OBJECTS + 1).try_collect(), stopped)?.map_err(failed)?;
        if found.len() > MOST_OBJECTS {
            return Err(fetch_error(&address, format!("expected at most {MOST_OBJECTS} objects, found more"), true));
        }
        if found.is_empty() {
            return Err(fetch_error(&address, "expected objects, found none that fits".to_string(), true));
        }
        found.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(found)
    }

    /// The object with this key.
    pub(super) fn object(&self, key: &str, stopped: Stopped) -> Result<ObjectMeta, RemoteError> {
        let address = format!("s3://{}/{key}", self.name);
        let key = Key::parse(key).map_err(|error| self.problem(&address, &error.into()))?;
        match self.wait(self.store.head(&key), stopped)? {
            Err(Error::NotFound { .. }) => Err(self.absent(&address, &key, stopped)),
            found => found.map_err(|error| self.problem(&address, &error)),
        }
    }

    /// The error about a key without an object.
    fn absent(&self, address: &str, key: &Key, stopped: Stopped) -> RemoteError {
        let below = self.wait(async { self.store.list(Some(key)).next().await }, stopped);
        let problem = match below {
            Ok(Some(Ok(_))) => "expected an object, found a folder of objects; to read all in it, end with /*".to_string(),
            Ok(Some(Err(error))) if has_status(&error, 404) => format!("expected a bucket {}, found none", self.name),
            _ => "expected an object, found none".to_string(),
        };
        fetch_error(address, problem, true)
    }

    /// The object in its place, fetched unless this version is there.
    pub(super) fn fetch(
        &self,
        object: &ObjectMeta,
        place: &Place,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<Download, RemoteError> {
        let address = format!("s3://{}/{}", self.name, object.location);
        let failed = |error: io::Error| fetch_error(&address, format!("cannot use the cache: {error}"), false);
        let version = version(object);
        let pinned = PinnedFile { name: object.location.to_string(), version: version.clone(), bytes: object.size };
        let _lock = place.lock(stopped, &failed)?;
        if let Some(found) = place.pinned(&pinned) {
            return Ok(found);
        }
        let partial = place.partial(&version);
        let have = || partial.metadata().map_or(0, |metadata| metadata.len());
        let gave_up = |last: String| fetch_error(&address, last, false);
        until_whole(stopped, &gave_up, &have, &mut || self.transfer(&address, object, &partial, stopped, observe))?;
        let path = place.file(&version);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::rename(&partial, &path).map_err(failed)?;
        Ok(Download { name: pinned.name, version, path })
    }

    /// One attempt: a request for the object, or for its rest.
    fn transfer(
        &self,
        address: &str,
        object: &ObjectMeta,
        partial: &std::path::Path,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), Trouble> {
        let on_disk = |error: io::Error| Trouble::Final(fetch_error(address, format!("{}: {error}", partial.display()), false));
        let remote = |error: Error| match self.problem(address, &error) {
            RemoteError::Fetch { problem, input: false, .. } => Trouble::Again(problem),
            error => Trouble::Final(error),
        };
        let mut file = OpenOptions::new().create(true).append(true).open(partial).map_err(on_disk)?;
        let mut have = file.metadata().map_err(on_disk)?.len();
        if have > object.size {
            file.set_len(0).map_err(on_disk)?;
            have = 0;
        }
        if have < object.size {
            let range = (have > 0).then_some(GetRange::Offset(have));
            let options = GetOptions { if_match: object.e_tag.clone(), range, ..GetOptions::default() };
            let answer = self.wait(self.store.get_opts(&object.location, options), stopped).map_err(Trouble::Final)?.map_err(remote)?;
            let mut pieces = answer.into_stream();
            while let Some(piece) = self.wait(pieces.next(), stopped).map_err(Trouble::Final)? {
                let piece = piece.map_err(remote)?;
                file.write_all(&piece).map_err(on_disk)?;
                have += piece.len() as u64;
                observe(have);
            }
        }
        file.sync_all().map_err(on_disk)?;
        if have == object.size { Ok(()) } else { Err(Trouble::Again(format!("expected {} bytes, found {have}", object.size))) }
    }

    /// Waits for an answer, unless the run is asked to stop.
    fn wait<T>(&self, answer: impl Future<Output = T>, stopped: Stopped) -> Result<T, RemoteError> {
        self.runtime.block_on(async {
            let mut answer = pin!(answer);
            loop {
                match timeout(LOOK, answer.as_mut()).await {
                    Ok(answer) => return Ok(answer),
                    Err(_) if stopped() => return Err(RemoteError::Stopped),
                    Err(_) => {}
                }
            }
        })
    }

    fn problem(&self, address: &str, error: &Error) -> RemoteError {
        let mut text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARACTERS) {
            text.truncate(end);
            text.push('…');
        }
        let (problem, input) = match error {
            _ if has_status(error, 404) => (format!("expected a bucket with this object, found none ({text})"), true),
            _ if has_status(error, 401) || has_status(error, 403) => (format!("expected access, found none ({text}); {HINT}"), true),
            Error::Precondition { .. } => ("the object changed while it was fetched; run again".to_string(), true),
            Error::InvalidPath { .. } => (text, true),
            _ if !self.has_credentials => (format!("{text}; no credentials were found: {HINT}"), false),
            _ => (text, false),
        };
        fetch_error(address, problem, input)
    }
}

/// Whether this is the server's answer. object_store has kinds of errors for objects only: the
/// status of a list is in the error's text.
fn has_status(error: &Error, status: u16) -> bool {
    match error {
        Error::NotFound { .. } => status == 404,
        Error::Unauthenticated { .. } => status == 401,
        Error::PermissionDenied { .. } => status == 403,
        Error::Generic { .. } => error.to_string().contains(&format!("status code: {status} ")),
        _ => false,
    }
}

/// The server's word for an object's content.
pub(super) fn version(object: &ObjectMeta) -> String {
    match &object.e_tag {
        Some(etag) => format!("etag {etag}"),
        None => format!("last-modified {}, {} bytes", object.last_modified.to_rfc3339(), object.size),
    }
}

fn fetch_error(address: &str, problem: String, input: bool) -> RemoteError {
    RemoteError::Fetch { address: address.to_string(), problem, input }
}
