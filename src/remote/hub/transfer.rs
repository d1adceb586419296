//! The transfer of one file of a repository into the cache.
//!
//! Made here and not by hf-hub, because a transfer must have time limits, continue where it was
//! cut, stop on request, and notice a truncated file. Knows nothing of a file's content.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use ureq::http::{StatusCode, header};

use super::super::attempts::{RETRIES, Trouble, persist, until_whole};
use super::super::error::RemoteError;
use super::super::partial_file::{self, starts_at};
use super::super::stop::Stopped;
use super::whole::is_whole;
use super::{Hub, HubRepo, Sibling};

/// Redirects within the hub itself, as of a renamed repository.
const MOST_REDIRECTS: usize = 5;

/// The hub's description of a file: the name of its blob, and its length.
struct Blob {
    etag: String,
    size: Option<u64>,
}

impl Hub {
    /// Ensures that one file is in the snapshot's folder; returns its length.
    pub(super) fn file(
        &self,
        repo: HubRepo,
        commit: &str,
        sibling: &Sibling,
        folder: &Path,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<u64, RemoteError> {
        let name = &sibling.rfilename;
        let pointer = folder.join(&sibling.rfilename);
        let failed = |path: &Path, error: std::io::Error| self.problem(repo, &format!("{}: {error}", path.display()), false);
        let length = |path: &Path| path.metadata().map(|metadata| metadata.len()).map_err(|error| failed(path, error));
        if is_whole(&pointer, name, sibling.size) {
            return length(&pointer);
        }
        let url = format!("{}/resolve/{commit}/{}", self.page(repo), escaped(name));
        let blob = persist(RETRIES, stopped, &|problem| self.gave_up(repo, &problem), &mut || self.blob(repo, &url))?;
        let size = sibling.size.or(blob.size);
        let path = self.folder(repo).join("blobs").join(&blob.etag);
        for needed in [path.parent(), pointer.parent()].into_iter().flatten() {
            fs::create_dir_all(needed).map_err(|error| failed(needed, error))?;
        }
        let _lock = self.lock(repo, &blob.etag, stopped)?;
        if !is_whole(&path, name, size) {
            let partial = path.with_file_name(format!("{}.incomplete", blob.etag));
            self.download(repo, &url, &partial, size, stopped, observe)?;
            if !is_whole(&partial, name, size) {
                let found = length(&partial)?;
                // A wrong file must not be continued.
                fs::remove_file(&partial).map_err(|error| failed(&partial, error))?;
                let problem = format!("{name}: expected a whole file, found {found} bytes that are not one; run again to fetch it anew");
                return Err(self.problem(repo, &problem, false));
            }
            fs::rename(&partial, &path).map_err(|error| failed(&path, error))?;
        }
        point(&pointer, &path, name, &blob.etag).map_err(|error| failed(&pointer, error))?;
        length(&path)
    }

    /// Asks for the description of a file, without its content.
    fn blob(&self, repo: HubRepo, url: &str) -> Result<Blob, Trouble> {
        let mut url = url.to_string();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent()?.head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
            if let Some(token) = &self.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Trouble::Again(format!("{url}: {error}")))?;
            let headers = response.headers();
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let etag = text("x-linked-etag").or_else(|| text("etag")).map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            // The hub's own redirects are relative; those with a host lead to where large files
            // are, and come with their etag.
            match text("location") {
                Some(location) if response.status().is_redirection() && location.starts_with('/') => {
                    url = format!("{}{location}", self.endpoint);
                    continue;
                }
                _ => {}
            }
            if !response.status().is_redirection() {
                self.check_status(repo, response.status(), headers)?;
            }
            let is_file = response.status().is_success();
            let size = text("x-linked-size").or_else(|| if is_file { text("content-length") } else { None });
            let valid = |etag: &&str| !etag.is_empty() && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            let etag = etag.filter(valid).ok_or_else(|| Trouble::Again(format!("{url}: expected a file's etag, found none")))?;
            return Ok(Blob { etag: etag.to_string(), size: size.and_then(|size| size.parse().ok()) });
        }
        Err(Trouble::Final(self.problem(repo, &format!("{url}: too many redirects"), false)))
    }

    /// Fetches a file into `partial`, continuing the bytes already there, until it is whole or the
    /// attempts are used up.
    fn download(
        &self,
        repo: HubRepo,
        url: &str,
        partial: &Path,
        size: Option<u64>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        let have = || partial.metadata().map_or(0, |metadata| metadata.len());
        let transfer = &mut || self.transfer(repo, url, partial, size, stopped, observe);
        until_whole(stopped, &|problem| self.gave_up(repo, &problem), &have, transfer)
    }

    /// One request for the rest of a file.
    fn transfer(
        &self,
        repo: HubRepo,
        url: &str,
        partial: &Path,
        size: Option<u64>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), Trouble> {
        let failed = |error: std::io::Error| Trouble::Final(self.problem(repo, &format!("{}: {error}", partial.display()), false));
        let mut file = OpenOptions::new().create(true).append(true).open(partial).map_err(failed)?;
        let mut have = file.metadata().map_err(failed)?.len();
        if size.is_some_and(|size| have > size) {
            file.set_len(0).map_err(failed)?;
            have = 0;
        }
        if size == Some(have) && have > 0 {
            return Ok(());
        }
        let mut response = self.get(url, (have > 0).then(|| format!("bytes={have}-")))?;
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT && starts_at(response.headers()) == Some(have);
        if have > 0 && !goes_on {
            file.set_len(0).map_err(failed)?;
            have = 0;
            if response.status() != StatusCode::OK {
                // No such range (416), or another one than asked for: begin again.
                self.check_status(repo, response.status(), response.headers())?;
                return Err(Trouble::Again(format!("{url}: expected to go on, found status {}", response.status())));
            }
        }
        self.check_status(repo, response.status(), response.headers())?;
        let appended = partial_file::append(&mut response.body_mut().as_reader(), &mut file, have, stopped, &failed, observe);
        have = appended.map_err(|trouble| match trouble {
            Trouble::Again(problem) => Trouble::Again(format!("{url}: {problem}")),
            other => other,
        })?;
        match size {
            Some(size) if have < size => Err(Trouble::Again(format!("{url}: expected {size} bytes, found {have}"))),
            _ => Ok(()),
        }
    }

    pub(super) fn get(&self, url: &str, range: Option<String>) -> Result<ureq::http::Response<ureq::Body>, Trouble> {
        let mut request = self.agent()?.get(url);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        request.call().map_err(|error| Trouble::Again(format!("{url}: {error}")))
    }

    /// Waits until no other process fetches the same file.
    fn lock(&self, repo: HubRepo, etag: &str, stopped: Stopped) -> Result<File, RemoteError> {
        let path = self.cache.path().join(".locks").join(repo.in_cache().folder_name()).join(format!("{etag}.lock"));
        let failed = |error: std::io::Error| self.problem(repo, &format!("{}: {error}", path.display()), false);
        partial_file::lock(&path, stopped, &failed)
    }
}

/// The name of a file in a URL.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Links the snapshot's name to the blob: out of its own folders, two folders up and one down.
fn point(pointer: &Path, blob: &Path, name: &str, etag: &str) -> std::io::Result<()> {
    match fs::remove_file(pointer) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    {
        let up = "../".repeat(name.matches('/').count());
        if std::os::unix::fs::symlink(Path::new(&format!("{up}../../blobs")).join(etag), pointer).is_ok() {
            return Ok(());
        }
    }
    // Where symbolic links are not possible: a hard link, or else a copy.
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(drop))
}
