//! Models and files of datasets from the Hugging Face hub, in the cache that its Python library
//! uses (`blobs/`, `snapshots/`, `refs/`), and to the hub ([`push`]).
//!
//! The cache's layout is hf-hub's; [`transfer`] brings a file into it. Of a model only the files
//! needed here are fetched: configuration, tokenizer, chat template and safetensors; of a dataset
//! those named by a path or a pattern. Knows nothing of the files' content.

mod problems;
mod push;
mod repo;
mod transfer;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hf_hub::Cache;
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;

use super::attempts::{RETRIES, TIMEOUT, Trouble, persist};
use super::error::RemoteError;
use super::network;
use super::stop::Stopped;
use repo::is_config;
use whole::is_whole;

pub use push::Pushed;
pub use repo::{HubFiles, HubRepo};

/// The limit for the length of an API answer.
const MOST_API_BYTES: u64 = 1 << 26;

/// The hub, as the environment describes it.
pub struct Hub {
    /// Made with the first request.
    agent: OnceLock<ureq::Agent>,
    cache: Cache,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

/// An earlier fetch. It is used again, wherever the branch points now.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The commit.
    pub commit: String,
    /// The files and their lengths.
    pub files: Vec<(String, u64)>,
}

/// Files of a repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder. It may hold more than `files`, from other programs.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// The wanted files, sorted.
    pub files: Vec<String>,
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
        let folder = folder.ok_or_else(|| RemoteError::Fetch {
            address: "hf://".to_string(),
            problem: "expected a folder for downloaded files, found no home directory; set HF_HOME".to_string(),
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
        let cache = Cache::new(std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf()));
        Self { agent: OnceLock::new(), cache, endpoint: endpoint.trim_end_matches('/').to_string(), token, offline }
    }

    /// The agent for the hub's address.
    fn agent(&self) -> Result<&ureq::Agent, Trouble> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .timeout_per_read(Some(TIMEOUT));
        let uri = self.endpoint.parse().map_err(|error| {
            let problem = format!("HF_ENDPOINT: expected the address of a hub, found one that is none: {error}");
            Trouble::Final(RemoteError::Fetch { address: self.endpoint.clone(), problem, input: true })
        })?;
        let route = network::route(&uri, settings).map_err(Trouble::Final)?;
        Ok(self.agent.get_or_init(|| route.agent))
    }

    /// The beginning of the hub's own addresses, and the token for them.
    pub fn credentials(&self) -> Option<(String, String)> {
        Some((format!("{}/", self.endpoint), self.token.clone()?))
    }

    /// The wanted files, from the cache where they are there, else from the hub; those of `pinned`
    /// if it is given. `observe` receives the present and the total number of bytes, as far as the
    /// hub gives them.
    ///
    /// # Errors
    /// No such repository, revision or file, no access, no network, no model; each with a remedy.
    pub fn fetch(
        &self,
        repo: HubRepo,
        pinned: Option<&Pinned>,
        stopped: Stopped,
        observe: &mut dyn FnMut(u64, u64),
    ) -> Result<Snapshot, RemoteError> {
        if let Some(pinned) = pinned {
            let folder = self.snapshot(repo, &pinned.commit);
            if pinned.files.iter().all(|(file, bytes)| is_whole(&folder.join(file), file, Some(*bytes))) {
                let files = pinned.files.iter().map(|(file, _)| file.clone()).collect();
                return Ok(Snapshot { folder, commit: pinned.commit.clone(), files });
            }
        }
        if self.offline {
            return self.cached(repo, pinned);
        }
        let revision = pinned.map_or(repo.revision, |pinned| &pinned.commit);
        let info = self.info(repo, revision, RETRIES, stopped)?;
        let wanted: Vec<&Sibling> = info.siblings.iter().filter(|sibling| repo.files.wants(&sibling.rfilename)).collect();
        self.check_wanted(repo, &info.siblings, &wanted)?;
        let total = wanted.iter().filter_map(|sibling| sibling.size).sum();
        let folder = self.snapshot(repo, &info.sha);
        let mut before = 0;
        for sibling in &wanted {
            let mut each = |bytes: u64| observe(before + bytes, total);
            before += self.file(repo, &info.sha, sibling, &folder, stopped, &mut each)?;
        }
        if pinned.is_none() && repo.revision != info.sha {
            let noted = self.cache.repo(repo.in_cache()).create_ref(&info.sha);
            noted.map_err(|error| self.problem(repo, &format!("cannot note the commit in the cache: {error}"), false))?;
        }
        let mut files: Vec<String> = wanted.iter().map(|sibling| sibling.rfilename.clone()).collect();
        files.sort();
        Ok(Snapshot { folder, commit: info.sha, files })
    }

    /// The current commit of the revision, asked for once; `None` when offline or without an answer
    /// of the hub.
    pub fn commit(&self, repo: HubRepo, stopped: Stopped) -> Option<String> {
        if self.offline { None } else { self.info(repo, repo.revision, 0, stopped).ok().map(|info| info.sha) }
    }

    /// The content of the cache, where the network must not be used.
    fn cached(&self, repo: HubRepo, pinned: Option<&Pinned>) -> Result<Snapshot, RemoteError> {
        if pinned.is_none() && repo.files.is_pattern() {
            let problem = "expected the names of files because HF_HUB_OFFLINE is set, found a pattern: \
                           the cache may have some of its files only; name each file, or run once without HF_HUB_OFFLINE";
            return Err(self.problem(repo, problem, true));
        }
        let in_ref = || fs::read_to_string(self.folder(repo).join("refs").join(repo.revision)).ok().map(|text| text.trim().to_string());
        let commit = match pinned {
            Some(pinned) => pinned.commit.clone(),
            None => in_ref().unwrap_or_else(|| repo.revision.to_string()),
        };
        let folder = self.snapshot(repo, &commit);
        let names = match repo.files {
            HubFiles::Model => {
                let names = fs::read_dir(&folder).into_iter().flatten();
                names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
            }
            HubFiles::Dataset(pattern) => match pinned {
                Some(pinned) => pinned.files.iter().map(|(file, _)| file.clone()).collect(),
                None => vec![pattern.as_str().to_string()],
            },
        };
        let is_there = |name: &String| repo.files.wants(name) && is_whole(&folder.join(name), name, None);
        let mut files: Vec<String> = names.into_iter().filter(is_there).collect();
        files.sort();
        let lacks = pinned.is_some_and(|pinned| pinned.files.iter().any(|(file, bytes)| !is_whole(&folder.join(file), file, Some(*bytes))));
        let is_model = || files.iter().any(|file| is_config(file));
        let is_complete = !lacks && if matches!(repo.files, HubFiles::Model) { is_model() } else { !files.is_empty() };
        if !is_complete {
            let problem = format!(
                "expected the {} in the cache {} because HF_HUB_OFFLINE is set, found {}; run once without HF_HUB_OFFLINE",
                repo.files.noun(),
                self.cache.path().display(),
                if files.is_empty() { "nothing" } else { "only part of it" }
            );
            return Err(self.problem(repo, &problem, true));
        }
        Ok(Snapshot { folder, commit, files })
    }

    fn folder(&self, repo: HubRepo) -> PathBuf {
        self.cache.path().join(repo.in_cache().folder_name())
    }

    fn snapshot(&self, repo: HubRepo, commit: &str) -> PathBuf {
        self.cache.repo(repo.in_cache()).pointer_path(commit)
    }

    /// The address of the repository's page; its files are below.
    fn page(&self, repo: HubRepo) -> String {
        format!("{}/{}", self.endpoint, repo.page())
    }

    /// The API's description of the revision.
    fn info(&self, repo: HubRepo, revision: &str, retries: usize, stopped: Stopped) -> Result<Info, RemoteError> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/{}/{}/revision/{revision}?blobs=true", self.endpoint, repo.files.api(), repo.repo);
        let info: Info = persist(retries, stopped, &|problem| self.gave_up(repo, &problem), &mut || {
            let mut response = self.get(&url, None)?;
            self.check_status(repo, response.status(), response.headers())?;
            let text = response.body_mut().with_config().limit(MOST_API_BYTES).read_to_string();
            let text = text.map_err(|error| Trouble::Again(format!("{url}: {error}")))?;
            serde_json::from_str(&text).map_err(|error| Trouble::Again(format!("{url}: expected what the repository holds, found {error}")))
        })?;
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(self.problem(repo, &format!("{url}: expected a commit as \"sha\", found {:?}", info.sha), false));
        }
        Ok(info)
    }
}
