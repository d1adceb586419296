//! Models from the Hugging Face hub, in the cache that its Python library uses (`blobs/`, `snapshots/`, `refs/`).
//!
//! The cache's layout is hf-hub's; transfers are made here, because they must have time limits, go on where they were cut, stop when asked to,
//! and notice a file that is short. Only what a model needs is fetched: configuration, tokenizer, chat template and safetensors.
//! Knows nothing of what is in a model, but the lengths that a safetensors header promises.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use serde_json::Value;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode, header};

use super::client::pause;
use super::{RemoteError, Stopped};

/// No connection, answer or piece of a file takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts without any progress, after the first.
const RETRIES: usize = 5;
/// The wait before the second attempt.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Bytes between two looks at whether to stop.
const PIECE_BYTES: usize = 1 << 18;
/// Redirects within the hub itself, as of a renamed repository.
const MOST_REDIRECTS: usize = 5;
/// No answer of the API is longer.
const MOST_API_BYTES: u64 = 1 << 26;
/// A safetensors header is at most this long (as its reader in Rust has it).
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// What belongs to a model besides its weights.
const FILES: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
];

/// The hub, as the environment describes it.
pub struct Hub {
    agent: ureq::Agent,
    cache: Cache,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

/// A model of the hub: `hf://repo@revision`.
#[derive(Clone, Copy, Debug)]
pub struct HubModel<'a> {
    /// Organisation and name, with `/`.
    pub repo: &'a str,
    /// A branch, tag or commit.
    pub revision: &'a str,
}

/// What was fetched before, to be used again whatever became of the branch.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The commit.
    pub commit: String,
    /// The files and their lengths.
    pub files: Vec<(String, u64)>,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder. It may hold more than `files`, which others have put there.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// The model's files, sorted.
    pub files: Vec<String>,
}

/// Why an attempt failed.
enum Trouble {
    /// For now.
    Again(String),
    /// For good.
    Final(RemoteError),
}

/// What the API says of a repository at a revision.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
}

/// What the hub says of a file: the name of its blob, and its length.
struct Blob {
    etag: String,
    size: Option<u64>,
}

impl Hub {
    /// The hub and cache that the environment names, as Python's huggingface_hub reads it: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME,
    /// XDG_CACHE_HOME, HF_TOKEN, HF_TOKEN_PATH and the token's file, HF_HUB_OFFLINE.
    ///
    /// # Errors
    /// No folder for the cache can be told.
    pub fn from_env() -> Result<Self, RemoteError> {
        let variable = |name: &str| std::env::var(name).ok().map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || path("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache"))).map(|cache| cache.join("huggingface"));
        let home = path("HF_HOME").or_else(user);
        let folder = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home.as_ref()?.join("hub")));
        let folder = folder.ok_or_else(|| RemoteError::Hub {
            model: "hf://".to_string(),
            problem: "expected a folder for downloaded models, found no home directory; set HF_HOME".to_string(),
            input: true,
        })?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        let in_file = || Some(fs::read_to_string(token_file?).ok()?.trim().to_string()).filter(|token| !token.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(in_file);
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()));
        Ok(Self::new(&endpoint, &folder, token, offline))
    }

    /// The hub at `endpoint`, with its cache in `folder`.
    pub fn new(endpoint: &str, folder: &Path, token: Option<String>, offline: bool) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .timeout_per_read(Some(TIMEOUT));
        let cache = Cache::new(std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf()));
        Self { agent: config.build().into(), cache, endpoint: endpoint.trim_end_matches('/').to_string(), token, offline }
    }

    /// The model's files, from the cache where they are there, else from the hub; those of `pinned` if it is given. `observe` hears how many
    /// bytes are there and how many there will be, as far as the hub says.
    ///
    /// # Errors
    /// No such repository or revision, no access, no network, no model; each with what can be done about it.
    pub fn fetch(
        &self,
        model: HubModel,
        pinned: Option<&Pinned>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Snapshot, RemoteError> {
        if let Some(pinned) = pinned {
            let folder = self.snapshot(model, &pinned.commit);
            if pinned.files.iter().all(|(file, bytes)| is_whole(&folder.join(file), file, Some(*bytes))) {
                let files = pinned.files.iter().map(|(file, _)| file.clone()).collect();
                return Ok(Snapshot { folder, commit: pinned.commit.clone(), files });
            }
        }
        if self.offline {
            return self.cached(model, pinned);
        }
        let revision = pinned.map_or(model.revision, |pinned| &pinned.commit);
        let info = self.info(model, revision, RETRIES, stopped)?;
        let wanted: Vec<&Sibling> = info.siblings.iter().filter(|sibling| is_needed(&sibling.rfilename)).collect();
        if !wanted.iter().any(|sibling| is_config(&sibling.rfilename)) {
            return Err(self.problem(model, "expected a model in Hugging Face's format, found a repository without config.json", true));
        }
        let total = wanted.iter().filter_map(|sibling| sibling.size).sum();
        let (folder, mut before) = (self.snapshot(model, &info.sha), 0);
        for sibling in &wanted {
            let mut each = |bytes: u64| observe(before + bytes, total);
            before += self.file(model, &info.sha, sibling, &folder, stopped, &mut each)?;
        }
        if pinned.is_none() {
            let repo = Repo::with_revision(model.repo.to_string(), RepoType::Model, model.revision.to_string());
            let noted = self.cache.repo(repo).create_ref(&info.sha);
            noted.map_err(|error| self.problem(model, &format!("cannot note the commit in the cache: {error}"), false))?;
        }
        let mut files: Vec<String> = wanted.iter().map(|sibling| sibling.rfilename.clone()).collect();
        files.sort();
        Ok(Snapshot { folder, commit: info.sha, files })
    }

    /// The commit that the revision is at now, asked for once; `None` when offline or the hub does not say.
    pub fn commit(&self, model: HubModel, stopped: Stopped) -> Option<String> {
        if self.offline { None } else { self.info(model, model.revision, 0, stopped).ok().map(|info| info.sha) }
    }

    /// What is in the cache, where the network must not be used.
    fn cached(&self, model: HubModel, pinned: Option<&Pinned>) -> Result<Snapshot, RemoteError> {
        let in_ref = || fs::read_to_string(self.folder(model).join("refs").join(model.revision)).ok().map(|text| text.trim().to_string());
        let commit = match pinned {
            Some(pinned) => pinned.commit.clone(),
            None => in_ref().unwrap_or_else(|| model.revision.to_string()),
        };
        let folder = self.snapshot(model, &commit);
        let names = fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut files: Vec<String> = names.filter(|name| is_needed(name) && is_whole(&folder.join(name), name, None)).collect();
        files.sort();
        let lacks = pinned.is_some_and(|pinned| pinned.files.iter().any(|(file, bytes)| !is_whole(&folder.join(file), file, Some(*bytes))));
        if lacks || !files.iter().any(|file| is_config(file)) {
            let problem = format!(
                "expected the model in the cache {} because HF_HUB_OFFLINE is set, found {}; run once without HF_HUB_OFFLINE",
                self.cache.path().display(),
                if files.is_empty() { "nothing" } else { "only part of it" }
            );
            return Err(self.problem(model, &problem, true));
        }
        Ok(Snapshot { folder, commit, files })
    }

    fn folder(&self, model: HubModel) -> PathBuf {
        self.cache.path().join(Repo::model(model.repo.to_string()).folder_name())
    }

    fn snapshot(&self, model: HubModel, commit: &str) -> PathBuf {
        self.cache.model(model.repo.to_string()).pointer_path(commit)
    }

    /// What the API says of the revision.
    fn info(&self, model: HubModel, revision: &str, retries: usize, stopped: Stopped) -> Result<Info, RemoteError> {
        let repo = Repo::with_revision(model.repo.to_string(), RepoType::Model, revision.to_string());
        let url = format!("{}/api/{}?blobs=true", self.endpoint, repo.api_url());
        let info: Info = self.persist(model, retries, stopped, &mut || {
            let mut response = self.get(&url, None)?;
            self.check_status(model, response.status(), response.headers())?;
            let text = response.body_mut().with_config().limit(MOST_API_BYTES).read_to_string();
            let text = text.map_err(|error| Trouble::Again(format!("{url}: {error}")))?;
            serde_json::from_str(&text).map_err(|error| Trouble::Again(format!("{url}: expected what the repository holds, found {error}")))
        })?;
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(self.problem(model, &format!("{url}: expected a commit as \"sha\", found {:?}", info.sha), false));
        }
        Ok(info)
    }

    /// Has one file in the snapshot's folder; its length.
    fn file(
        &self,
        model: HubModel,
        commit: &str,
        sibling: &Sibling,
        folder: &Path,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<u64, RemoteError> {
        let (name, pointer) = (&sibling.rfilename, folder.join(&sibling.rfilename));
        let failed = |path: &Path, error: std::io::Error| self.problem(model, &format!("{}: {error}", path.display()), false);
        let length = |path: &Path| path.metadata().map(|metadata| metadata.len()).map_err(|error| failed(path, error));
        if is_whole(&pointer, name, sibling.size) {
            return length(&pointer);
        }
        let url = format!("{}/{}/resolve/{commit}/{name}", self.endpoint, model.repo);
        let blob = self.persist(model, RETRIES, stopped, &mut || self.blob(model, &url))?;
        let size = sibling.size.or(blob.size);
        let path = self.cache.model(model.repo.to_string()).blob_path(&blob.etag);
        for needed in [path.parent(), Some(folder)].into_iter().flatten() {
            fs::create_dir_all(needed).map_err(|error| failed(needed, error))?;
        }
        let _lock = self.lock(model, &blob.etag, stopped)?;
        if !is_whole(&path, name, size) {
            let partial = path.with_file_name(format!("{}.incomplete", blob.etag));
            self.download(model, &url, &partial, size, stopped, observe)?;
            if !is_whole(&partial, name, size) {
                let found = length(&partial)?;
                // What is wrong must not be gone on from.
                fs::remove_file(&partial).map_err(|error| failed(&partial, error))?;
                let problem = format!("{name}: expected a whole file, found {found} bytes that are not one; run again to fetch it anew");
                return Err(self.problem(model, &problem, false));
            }
            fs::rename(&partial, &path).map_err(|error| failed(&path, error))?;
        }
        point(&pointer, &path, &blob.etag).map_err(|error| failed(&pointer, error))?;
        length(&path)
    }

    /// Asks what a file is, without its content.
    fn blob(&self, model: HubModel, url: &str) -> Result<Blob, Trouble> {
        let mut url = url.to_string();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
            if let Some(token) = &self.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Trouble::Again(format!("{url}: {error}")))?;
            let headers = response.headers();
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let etag = text("x-linked-etag").or_else(|| text("etag")).map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            // The hub's own redirects are relative; those with a host lead to where large files are, and come with their etag.
            match text("location") {
                Some(location) if response.status().is_redirection() && location.starts_with('/') => {
                    url = format!("{}{location}", self.endpoint);
                    continue;
                }
                _ => {}
            }
            if !response.status().is_redirection() {
                self.check_status(model, response.status(), headers)?;
            }
            let size = text("x-linked-size").or_else(|| text("content-length").filter(|_| response.status().is_success()));
            let valid = |etag: &&str| !etag.is_empty() && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            let etag = etag.filter(valid).ok_or_else(|| Trouble::Again(format!("{url}: expected a file's etag, found none")))?;
            return Ok(Blob { etag: etag.to_string(), size: size.and_then(|size| size.parse().ok()) });
        }
        Err(Trouble::Final(self.problem(model, &format!("{url}: too many redirects"), false)))
    }

    /// Fetches a file into `partial`, going on from what is there, until it is whole or attempts come to nothing.
    fn download(
        &self,
        model: HubModel,
        url: &str,
        partial: &Path,
        size: Option<u64>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        loop {
            let before = partial.metadata().map_or(0, |metadata| metadata.len());
            let mut have = before;
            let result = self.persist(model, RETRIES, stopped, &mut || {
                let result = self.transfer(model, url, partial, size, stopped, observe);
                have = partial.metadata().map_or(0, |metadata| metadata.len());
                // Progress counts as a success: attempts are counted anew from here.
                if have > before && matches!(result, Err(Trouble::Again(_))) { Ok(false) } else { result.map(|()| true) }
            })?;
            if result {
                return Ok(());
            }
        }
    }

    /// One request for the rest of a file.
    fn transfer(
        &self,
        model: HubModel,
        url: &str,
        partial: &Path,
        size: Option<u64>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64),
    ) -> Result<(), Trouble> {
        let failed = |error: std::io::Error| Trouble::Final(self.problem(model, &format!("{}: {error}", partial.display()), false));
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
                // A range that cannot be had (416), or another one than was asked for: from the beginning then.
                self.check_status(model, response.status(), response.headers())?;
                return Err(Trouble::Again(format!("{url}: expected to go on, found status {}", response.status())));
            }
        }
        self.check_status(model, response.status(), response.headers())?;
        let mut reader = response.body_mut().as_reader();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if stopped() {
                return Err(Trouble::Final(RemoteError::Stopped));
            }
            let read = reader.read(&mut piece).map_err(|error| Trouble::Again(format!("{url}: cut after {have} bytes: {error}")))?;
            if read == 0 {
                break;
            }
            file.write_all(piece.get(..read).unwrap_or_default()).map_err(failed)?;
            have += read as u64;
            observe(have);
        }
        file.sync_all().map_err(failed)?;
        match size {
            Some(size) if have < size => Err(Trouble::Again(format!("{url}: expected {size} bytes, found {have}"))),
            _ => Ok(()),
        }
    }

    fn get(&self, url: &str, range: Option<String>) -> Result<ureq::http::Response<ureq::Body>, Trouble> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        request.call().map_err(|error| Trouble::Again(format!("{url}: {error}")))
    }

    /// Repeats what may succeed later, with longer and longer waits.
    fn persist<T>(
        &self,
        model: HubModel,
        retries: usize,
        stopped: Stopped,
        attempt: &mut dyn FnMut() -> Result<T, Trouble>,
    ) -> Result<T, RemoteError> {
        let mut waits = ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_times(retries).with_jitter().build();
        loop {
            if stopped() {
                return Err(RemoteError::Stopped);
            }
            match attempt() {
                Ok(found) => return Ok(found),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Again(problem)) => match waits.next() {
                    Some(wait) => pause(wait, stopped)?,
                    None => {
                        let problem = format!("{problem}; without a network, HF_HUB_OFFLINE=1 uses what is in the cache");
                        return Err(self.problem(model, &problem, false));
                    }
                },
            }
        }
    }

    /// What a status means. The hub says in a header of its own what is not there.
    fn check_status(&self, model: HubModel, status: StatusCode, headers: &HeaderMap) -> Result<(), Trouble> {
        let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let how = if self.token.is_some() { "the token that was found has none" } else { "there is no token; put one into HF_TOKEN" };
        let page = format!("{}/{}", self.endpoint, model.repo);
        let problem = match (status.as_u16(), code) {
            (200..=299, _) => return Ok(()),
            (_, "RevisionNotFound") => {
                format!("expected a branch, tag or commit \"{}\", found none; see {page}/commits/main", model.revision)
            }
            (_, "GatedRepo") => format!("expected access to a gated model: {how}; ask for access at {page}"),
            (_, "RepoNotFound") | (404, "") => format!("expected a model at {page}, found none, or a private one: {how}"),
            (401 | 403, _) => format!("expected access to {page}, found status {status}: {how}"),
            (408 | 416 | 425 | 429 | 500.., _) => return Err(Trouble::Again(format!("{page}: status {status}"))),
            (_, code) => format!("{page}: found status {status} {code}"),
        };
        Err(Trouble::Final(self.problem(model, &problem, true)))
    }

    /// Waits until no other process fetches the same file.
    fn lock(&self, model: HubModel, etag: &str, stopped: Stopped) -> Result<File, RemoteError> {
        let folder = self.cache.path().join(".locks").join(Repo::model(model.repo.to_string()).folder_name());
        let path = folder.join(format!("{etag}.lock"));
        let failed = |error: std::io::Error| self.problem(model, &format!("{}: {error}", path.display()), false);
        fs::create_dir_all(&folder).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => pause(Duration::from_millis(200), stopped)?,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn problem(&self, model: HubModel, problem: &str, input: bool) -> RemoteError {
        let shown = self.token.as_ref().map_or_else(|| problem.to_string(), |token| problem.replace(token, "***"));
        RemoteError::Hub { model: format!("hf://{}@{}", model.repo, model.revision), problem: shown, input }
    }
}

/// Whether a file of a repository is part of a model as it is loaded here and elsewhere from safetensors.
fn is_needed(name: &str) -> bool {
    let is_shard = name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c));
    plain && (FILES.contains(&name) || name == "model.safetensors" || is_shard)
}

/// Whether a file says what the model is; of an adapter, on which base.
fn is_config(name: &str) -> bool {
    matches!(name, "config.json" | "adapter_config.json")
}

/// Whether the file `name` lies at `path` with its length: that which is known, and of safetensors that which the header promises.
fn is_whole(path: &Path, name: &str, size: Option<u64>) -> bool {
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

/// Where the bytes of a partial answer begin: `Content-Range: bytes 100-199/200`.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Lets the snapshot's name stand for the blob, which lies two folders up and one down.
fn point(pointer: &Path, blob: &Path, etag: &str) -> std::io::Result<()> {
    match fs::remove_file(pointer) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    if std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), pointer).is_ok() {
        return Ok(());
    }
    // Where there are no links that name a path: a second name, or else a copy.
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(drop))
}
