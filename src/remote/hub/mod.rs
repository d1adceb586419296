//! Models from the Hugging Face hub, in the cache that its Python library uses (`blobs/`,
//! `snapshots/`, `refs/`).
//!
//! The cache's layout is hf-hub's; [`transfer`] brings a file into it. Only the files of a model
//! are fetched: configuration, tokenizer, chat template and safetensors. Knows nothing of a model's
//! content.

mod transfer;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode};

use super::error::RemoteError;
use super::stop::{Stopped, pause};
use whole::is_whole;

/// The time limit of a connection, an answer or a piece of a file.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts without any progress, after the first.
const RETRIES: usize = 5;
/// The wait before the second attempt.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The limit for the length of an API answer.
const MOST_API_BYTES: u64 = 1 << 26;

/// The files of a model besides its weights.
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

/// An earlier fetch. It is used again, wherever the branch points now.
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
    /// The folder. It may hold more than `files`, from other programs.
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

/// The API's description of a repository at a revision.
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

impl Hub {
    /// The hub and cache that the environment names, as Python's huggingface_hub reads it:
    /// HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_TOKEN, HF_TOKEN_PATH and the token's
    /// file, HF_HUB_OFFLINE.
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

    /// The model's files, from the cache where they are there, else from the hub; those of `pinned`
    /// if it is given. `observe` receives the present and the total number of bytes, as far as the
    /// hub gives them.
    ///
    /// # Errors
    /// No such repository or revision, no access, no network, no model; each with a remedy.
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
        let folder = self.snapshot(model, &info.sha);
        let mut before = 0;
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

    /// The current commit of the revision, asked for once; `None` when offline or without an answer
    /// of the hub.
    pub fn commit(&self, model: HubModel, stopped: Stopped) -> Option<String> {
        if self.offline { None } else { self.info(model, model.revision, 0, stopped).ok().map(|info| info.sha) }
    }

    /// The content of the cache, where the network must not be used.
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

    /// The API's description of the revision.
    fn info(&self, model: HubModel, revision: &str, retries: usize, stopped: Stopped) -> Result<Info, RemoteError> {
        let url = format!("{}/api/models/{}/revision/{}?blobs=true", self.endpoint, model.repo, revision.replace('/', "%2F"));
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

    /// Repeats temporary failures, with growing waits.
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

    /// The meaning of a status. A header of the hub names the missing thing.
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

    fn problem(&self, model: HubModel, problem: &str, input: bool) -> RemoteError {
        let shown = self.token.as_ref().map_or_else(|| problem.to_string(), |token| problem.replace(token, "***"));
        RemoteError::Hub { model: format!("hf://{}@{}", model.repo, model.revision), problem: shown, input }
    }
}

/// Whether a file of a repository is part of a model as it is loaded here and elsewhere from
/// safetensors.
fn is_needed(name: &str) -> bool {
    let is_shard = name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c));
    plain && (FILES.contains(&name) || name == "model.safetensors" || is_shard)
}

/// Whether a file describes the model; for an adapter, its base.
fn is_config(name: &str) -> bool {
    matches!(name, "config.json" | "adapter_config.json")
}
