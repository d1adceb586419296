//! A folder's files as one commit of a repository.
//!
//! As the hub's API and Git LFS have it: the hub says which files go into the commit itself; large
//! ones are uploaded before it, each under its sha256. What the hub has already is not sent again,
//! so an interrupted push goes on. Knows nothing of the files' content.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode, header};
use ureq::{Body, SendBody};

use super::super::attempts::{RETRIES, Trouble, persist};
use super::super::error::RemoteError;
use super::super::stop::Stopped;
use super::{Hub, HubRepo, MOST_API_BYTES};

/// The beginning of a file from which the hub decides how it goes.
const SAMPLE: u64 = 512;
/// The piece of a file that is read at once.
const PIECE: usize = 1 << 20;
const LFS: &str = "application/vnd.git-lfs+json";

/// A commit that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its page.
    pub url: String,
    /// Its name.
    pub commit: String,
}

/// A file on its way.
struct Outgoing {
    /// The name in the repository.
    name: String,
    path: PathBuf,
    bytes: u64,
    /// The sha256 of a file that goes by Git LFS.
    large: Option<String>,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Actions,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    commit_url: String,
    commit_oid: String,
}

impl Hub {
    /// Commits the files of `folder`, those in folders within it too, to the branch of `repo`. A
    /// repository that is not there is made, `private` or not. `observe` receives the uploaded and
    /// the total number of bytes of large files.
    ///
    /// # Errors
    /// HF_HUB_OFFLINE is set; no right to write; no such branch; a file cannot be read; the hub
    /// does not answer as its API says.
    pub fn push(
        &self,
        repo: HubRepo,
        folder: &Path,
        private: bool,
        summary: &str,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Pushed, RemoteError> {
        if self.offline {
            return Err(self.problem(repo, "expected a network to push, but HF_HUB_OFFLINE is set", true));
        }
        if self.token.is_none() {
            return Err(self.problem(repo, "expected a token with the right to write, found none; put one into HF_TOKEN", true));
        }
        let mut files = Vec::new();
        let listed = list(folder, "", &mut files);
        listed.map_err(|error| self.problem(repo, &format!("{}: {error}", folder.display()), false))?;
        files.sort_by(|one, other| one.name.cmp(&other.name));
        self.ensure(repo, private, stopped)?;
        self.choose(repo, &mut files, stopped)?;
        self.upload(repo, &files, stopped, observe)?;
        self.commit_files(repo, &files, summary, stopped)
    }

    /// Makes the repository if it is not there.
    fn ensure(&self, repo: HubRepo, private: bool, stopped: Stopped) -> Result<(), RemoteError> {
        let url = format!("{}/api/{}/{}", self.endpoint, repo.files.api(), repo.repo);
        let there = self.persist(repo, stopped, &mut || {
            let mut response = self.get(&url, None)?;
            match response.status() {
                status if status.is_success() => json_of::<Value>(&url, &mut response).map(|_| true),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(false),
                status => Err(Trouble::Again(format!("{url}: status {status}"))),
            }
        })?;
        if there {
            return Ok(());
        }
        let (organization, name) = repo.repo.split_once('/').unwrap_or(("", repo.repo));
        let body = json!({"name": name, "organization": organization, "type": repo.files.noun(), "private": private});
        let url = format!("{}/api/repos/create", self.endpoint);
        self.persist(repo, stopped, &mut || {
            let mut response = self.post(&url, "application/json", body.to_string().into_bytes())?;
            match response.status() {
                // Made in the meantime.
                StatusCode::CONFLICT => Ok(()),
                status if status.is_success() => json_of::<Value>(&url, &mut response).map(drop),
                status => self.check_written(repo, status, response),
            }
        })
    }

    /// Asks which files go by Git LFS; files that the repository ignores are left out.
    fn choose(&self, repo: HubRepo, files: &mut Vec<Outgoing>, stopped: Stopped) -> Result<(), RemoteError> {
        let mut asked = Vec::new();
        for file in &*files {
            let mut sample = Vec::new();
            let read = File::open(&file.path).and_then(|opened| opened.take(SAMPLE).read_to_end(&mut sample));
            read.map_err(|error| self.unreadable(repo, file, &error))?;
            asked.push(json!({"path": file.name, "sample": STANDARD.encode(sample), "size": file.bytes}));
        }
        let url = self.api(repo, "preupload");
        let body = json!({ "files": asked }).to_string();
        let modes: Modes = self.ask(repo, &url, "application/json", &body, stopped)?;
        let mut chosen = Vec::new();
        for mut file in files.drain(..) {
            let Some(mode) = modes.files.iter().find(|mode| mode.path == file.name) else {
                let problem = format!("{url}: expected how {} is to be uploaded, found nothing about it", file.name);
                return Err(self.problem(repo, &problem, false));
            };
            if mode.should_ignore {
                continue;
            }
            if mode.upload_mode == "lfs" {
                file.large = Some(sha256(&file.path, stopped).map_err(|error| self.unreadable(repo, &file, &error))?);
            }
            chosen.push(file);
        }
        *files = chosen;
        Ok(())
    }

    /// Uploads the large files that the hub does not have.
    fn upload(&self, repo: HubRepo, files: &[Outgoing], stopped: Stopped, observe: &mut dyn FnMut(u64, u64)) -> Result<(), RemoteError> {
        let large: Vec<(&Outgoing, &String)> = files.iter().filter_map(|file| Some((file, file.large.as_ref()?))).collect();
        if large.is_empty() {
            return Ok(());
        }
        let objects: Vec<Value> = large.iter().map(|(file, oid)| json!({"oid": oid, "size": file.bytes})).collect();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256",
            "ref": {"name": repo.revision},
        });
        let url = format!("{}.git/info/lfs/objects/batch", self.page(repo));
        let batch: Batch = self.ask(repo, &url, LFS, &body.to_string(), stopped)?;
        let total = large.iter().map(|(file, _)| file.bytes).sum();
        let mut sent = 0;
        for (file, oid) in large {
            let Some(object) = batch.objects.iter().find(|object| object.oid == *oid) else {
                return Err(self.problem(repo, &format!("{url}: expected where {} goes, found nothing about it", file.name), false));
            };
            if let Some(error) = &object.error {
                return Err(self.problem(repo, &format!("{}: the hub refuses it: {error}", file.name), false));
            }
            // Without an action the hub has the file.
            if let Some(action) = &object.actions.upload {
                let mut each = |bytes: u64| observe(sent + bytes, total);
                match action.header.get("chunk_size") {
                    Some(size) => self.send_parts(repo, file, oid, action, size, stopped, &mut each)?,
                    None => {
                        let range = (0, file.bytes);
                        self.send(repo, file, range, &action.href, &action.header, stopped, &mut each)?;
                    }
                }
                if let Some(verify) = &object.actions.verify {
                    let body = json!({"oid": oid, "size": file.bytes}).to_string();
                    self.persist(repo, stopped, &mut || {
                        let response = self.post(&verify.href, LFS, body.clone().into_bytes())?;
                        self.check_written(repo, response.status(), response)
                    })?;
                }
            }
            sent += file.bytes;
            observe(sent, total);
        }
        Ok(())
    }

    /// Sends a file in parts, each to an address of its own.
    #[expect(clippy::too_many_arguments, reason = "one transfer")]
    fn send_parts(
        &self,
        repo: HubRepo,
        file: &Outgoing,
        oid: &str,
        action: &Action,
        size: &Value,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|size| *size > 0);
        let numbered = |(key, value): (&String, &Value)| Some((key.parse::<u64>().ok()?, value.as_str()?.to_string()));
        let mut parts: Vec<(u64, String)> = action.header.iter().filter_map(numbered).collect();
        parts.sort();
        let wanted = size.map(|size| file.bytes.div_ceil(size));
        let (Some(size), true) = (size, wanted == Some(parts.len() as u64)) else {
            let problem = format!("{}: expected addresses for all parts, found {} for {} bytes", file.name, parts.len(), file.bytes);
            return Err(self.problem(repo, &problem, false));
        };
        let mut done = Vec::new();
        for (index, (number, href)) in parts.iter().enumerate() {
            let start = index as u64 * size;
            let range = (start, size.min(file.bytes - start));
            let mut each = |bytes: u64| observe(start + bytes);
            let etag = self.send(repo, file, range, href, &serde_json::Map::new(), stopped, &mut each)?;
            if etag.is_empty() {
                return Err(self.problem(repo, &format!("{}: expected the etag of part {number}, found none", file.name), false));
            }
            done.push(json!({"partNumber": number, "etag": etag}));
        }
        let body = json!({"oid": oid, "parts": done}).to_string();
        self.persist(repo, stopped, &mut || {
            let response = self.post(&action.href, LFS, body.clone().into_bytes())?;
            self.check_written(repo, response.status(), response)
        })
    }

    /// Puts a range of a file, its start and length, to an address; returns the etag of the answer.
    #[expect(clippy::too_many_arguments, reason = "one transfer")]
    fn send(
        &self,
        repo: HubRepo,
        file: &Outgoing,
        range: (u64, u64),
        href: &str,
        headers: &serde_json::Map<String, Value>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<String, RemoteError> {
        // The address is signed: it must not be shown.
        let shown = href.split('?').next().unwrap_or(href);
        self.persist(repo, stopped, &mut || {
            let opened = File::open(&file.path).and_then(|mut opened| opened.seek(SeekFrom::Start(range.0)).map(|_| opened));
            let opened = opened.map_err(|error| Trouble::Final(self.unreadable(repo, file, &error)))?;
            let mut body = Watched { inner: opened.take(range.1), read: 0, stopped, observe };
            let mut request = self.agent()?.put(href).header(header::CONTENT_LENGTH, range.1.to_string());
            for (name, value) in headers {
                if let Some(value) = value.as_str() {
                    request = request.header(name, value);
                }
            }
            let response = request.send(SendBody::from_reader(&mut body));
            let response = match response {
                Err(_) if stopped() => return Err(Trouble::Final(RemoteError::Stopped)),
                response => response.map_err(|error| Trouble::Again(format!("{shown}: {error}")))?,
            };
            if !response.status().is_success() {
                return Err(Trouble::Again(format!("{shown}: status {}", response.status())));
            }
            Ok(response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_string())
        })
    }

    /// Makes the commit.
    fn commit_files(&self, repo: HubRepo, files: &[Outgoing], summary: &str, stopped: Stopped) -> Result<Pushed, RemoteError> {
        let mut lines = json!({"key": "header", "value": {"summary": summary, "description": ""}}).to_string();
        for file in files {
            let line = match &file.large {
                Some(oid) => {
                    json!({"key": "lfsFile", "value": {"path": file.name, "algo": "sha256", "oid": oid, "size": file.bytes}})
                }
                None => {
                    let bytes = fs::read(&file.path).map_err(|error| self.unreadable(repo, file, &error))?;
                    json!({"key": "file", "value": {"content": STANDARD.encode(bytes), "path": file.name, "encoding": "base64"}})
                }
            };
            lines.push('\n');
            lines.push_str(&line.to_string());
        }
        let made: Made = self.ask(repo, &self.api(repo, "commit"), "application/x-ndjson", &lines, stopped)?;
        Ok(Pushed { url: made.commit_url, commit: made.commit_oid })
    }

    /// The address of an API of the branch.
    fn api(&self, repo: HubRepo, what: &str) -> String {
        format!("{}/api/{}/{}/{what}/{}", self.endpoint, repo.files.api(), repo.repo, repo.revision.replace('/', "%2F"))
    }

    /// Posts a body and reads the answer.
    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        repo: HubRepo,
        url: &str,
        content: &str,
        body: &str,
        stopped: Stopped,
    ) -> Result<T, RemoteError> {
        self.persist(repo, stopped, &mut || {
            let mut response = self.post(url, content, body.as_bytes().to_vec())?;
            if !response.status().is_success() {
                return self.check_written(repo, response.status(), response).and_then(|()| Err(Trouble::Again(url.to_string())));
            }
            let text = response.body_mut().with_config().limit(MOST_API_BYTES).read_to_string();
            let text = text.map_err(|error| Trouble::Again(format!("{url}: {error}")))?;
            serde_json::from_str(&text)
                .map_err(|error| Trouble::Again(format!("{url}: expected an answer of the hub's API, found {error}")))
        })
    }

    fn persist<T>(&self, repo: HubRepo, stopped: Stopped, attempt: &mut dyn FnMut() -> Result<T, Trouble>) -> Result<T, RemoteError> {
        persist(RETRIES, stopped, &|problem| self.problem(repo, &problem, false), attempt)
    }

    fn post(&self, url: &str, content: &str, body: Vec<u8>) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent()?.post(url).content_type(content);
        if content == LFS {
            request = request.header(header::ACCEPT, LFS);
        }
        // The token is for the hub's own addresses. A signed one has its own right.
        if let Some((own, token)) = self.credentials()
            && url.starts_with(&own)
            && !url.contains('?')
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let shown = url.split('?').next().unwrap_or(url);
        request.send(body).map_err(|error| Trouble::Again(format!("{shown}: {error}")))
    }

    /// The meaning of an answer's status to a request that writes.
    fn check_written(&self, repo: HubRepo, status: StatusCode, mut response: Response<Body>) -> Result<(), Trouble> {
        match status.as_u16() {
            401 | 403 => {
                let problem = format!("expected the right to write to {}, found status {status}: the token has none", self.page(repo));
                Err(Trouble::Final(self.problem(repo, &problem, true)))
            }
            400 | 409 | 412 | 413 | 422 => {
                let said = response.body_mut().with_config().limit(MOST_API_BYTES).read_to_string().unwrap_or_default();
                let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
                Err(Trouble::Final(self.problem(repo, &format!("{}: status {status}: {said}", self.page(repo)), false)))
            }
            _ => self.check_status(repo, status, response.headers()),
        }
    }

    fn unreadable(&self, repo: HubRepo, file: &Outgoing, error: &std::io::Error) -> RemoteError {
        if error.kind() == std::io::ErrorKind::Interrupted {
            return RemoteError::Stopped;
        }
        self.problem(repo, &format!("{}: {error}", file.path.display()), false)
    }
}

/// The JSON of an answer.
fn json_of<T: serde::de::DeserializeOwned>(url: &str, response: &mut Response<Body>) -> Result<T, Trouble> {
    let text = response.body_mut().with_config().limit(MOST_API_BYTES).read_to_string();
    let text = text.map_err(|error| Trouble::Again(format!("{url}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Trouble::Again(format!("{url}: expected an answer of the hub's API, found {error}")))
}

/// Bytes on their way: counted, and ended when the run is to stop.
struct Watched<'a, R> {
    inner: R,
    read: u64,
    stopped: Stopped<'a>,
    observe: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if (self.stopped)() {
            return Err(std::io::Error::other("interrupted"));
        }
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        (self.observe)(self.read);
        Ok(count)
    }
}

/// The files of a folder, with `/` in the names of those in folders within it. Hidden ones are not
/// among them.
fn list(folder: &Path, prefix: &str, files: &mut Vec<Outgoing>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(std::io::Error::other(format!("{:?} is not a name in UTF-8", entry.file_name())));
        };
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let metadata = fs::metadata(&path)?;
        let name = format!("{prefix}{name}");
        if metadata.is_dir() {
            list(&path, &format!("{name}/"), files)?;
        } else {
            files.push(Outgoing { name, path, bytes: metadata.len(), large: None });
        }
    }
    Ok(())
}

/// The sha256 of a file, in hexadecimal.
fn sha256(path: &Path, stopped: Stopped) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        if stopped() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hash.update(piece.get(..count).unwrap_or_default());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
