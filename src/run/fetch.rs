//! Fetches models and tables from elsewhere before the other checks, and pins their commits and
//! versions for resumed runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use glob::Pattern;
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::dag::fingerprint::Fingerprint;
use crate::model::{self, HubBase};
use crate::operators::{OperatorError, Progress};
use crate::pipeline::address::{Address, is_recorded, recorded, shown};
use crate::pipeline::graph::Graph;
use crate::remote::{Download, Downloads, Hub, HubFiles, HubRepo, Pinned, PinnedFile, RemoteError};
use crate::store::{self, ModelFile, Run};

/// Bytes in a unit of progress.
const MEGABYTE: u64 = 1_000_000;

/// What happens when a server's file has changed since the start of a run.
const GOES_ON: &str = "this run goes on with what it began with";
/// The way on when what a run began with is nowhere.
const NEW_NAME: &str = "give the run another name to begin with the present content";

/// A graph with local folders for all models, and local files for all tables.
pub struct Fetched {
    /// The graph.
    pub graph: Graph,
    /// What was fetched, by its name in the pipeline file (`hf://org/name@revision`).
    pub(super) sources: BTreeMap<String, Source>,
    /// The fingerprints of fetched models, by folder, and of fetched tables, by file. Those of
    /// models cover only their own files: other programs may add files to the folders.
    pub(super) fingerprints: BTreeMap<PathBuf, Fingerprint>,
}

/// A model or a table from elsewhere at the start of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    /// The commit of a repository of the hub.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    commit: String,
    /// The versions of other files, in their order: etags or dates of their servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<String>,
    files: Vec<ModelFile>,
}

/// Fetches the models named `hf://…` and the tables with addresses: at the commits and versions of
/// the run's start, else at the current ones.
///
/// # Errors
/// A model or a table is not available, or a file differs from the run's start.
pub fn fetch(mut graph: Graph, run: &Run, stopped: &(dyn Fn() -> bool + Sync), progress: &dyn Progress) -> Result<Fetched, RunError> {
    let mut fetching = Fetching { run, stopped, progress, hub: None, downloads: None, began: None, commits: BTreeMap::new() };
    let mut sources = BTreeMap::new();
    let mut fingerprints = BTreeMap::new();
    for (name, path) in graph.models_mut() {
        let written = path.display().to_string();
        if let Some(of_hub) = written.strip_prefix("hf://") {
            let (repo, revision) = of_hub
                .split_once('@')
                .ok_or_else(|| RunError::Internal { place: "run::fetch", problem: format!("{written} has no revision") })?;
            let repo = HubRepo { repo, revision, files: HubFiles::Model };
            let (folder, source) = fetching.repository(name, &written, repo)?;
            fingerprints.insert(folder.clone(), store::fingerprint_of_files(&source.files));
            sources.insert(written, source);
            *path = folder;
        }
        if let Some((folder, written, source)) = fetching.base(name, path)? {
            fingerprints.insert(folder, store::fingerprint_of_files(&source.files));
            sources.insert(written, source);
        }
    }
    for (name, paths) in graph.tables_mut() {
        let mut local: Vec<PathBuf> = Vec::with_capacity(paths.len());
        for path in paths.iter() {
            let written = path.display().to_string();
            let Some(address) = Address::parse(&written) else {
                local.push(path.clone());
                continue;
            };
            let address = address.map_err(|problem| RunError::Internal { place: "run::fetch", problem })?;
            let (files, source) = fetching.table(name, &written, &address)?;
            for (file, hashed) in files.iter().zip(&source.files) {
                fingerprints.insert(file.clone(), hashed.fingerprint()?);
            }
            sources.insert(recorded(&written), source);
            local.extend(files);
        }
        // In the order of the addresses, wherever the cache is; two patterns may name one file.
        let mut seen = std::collections::HashSet::new();
        local.retain(|path| seen.insert(path.clone()));
        *paths = local;
    }
    Ok(Fetched { graph, sources, fingerprints })
}

/// The sources fetched so far, and what is needed to fetch more.
struct Fetching<'a> {
    run: &'a Run,
    stopped: &'a (dyn Fn() -> bool + Sync),
    progress: &'a dyn Progress,
    hub: Option<Hub>,
    downloads: Option<Downloads>,
    /// The sources at the start of the run.
    began: Option<BTreeMap<String, Source>>,
    /// The commits of the repositories so far: one run sees one commit of each.
    commits: BTreeMap<String, String>,
}

impl Fetching<'_> {
    /// Files of a repository of the hub: their folder, with their commit and hashes.
    fn repository(&mut self, name: &str, written: &str, repo: HubRepo) -> Result<(PathBuf, Source), RunError> {
        let began = self.began(written)?;
        let hub = hub(&mut self.hub)?;
        if let Some(began) = &began
            && let Some(now) = hub.commit(repo, self.stopped).filter(|now| *now != began.commit)
        {
            let began = &began.commit;
            self.progress.warned(name, &format!("{written} is at commit {now} now; this run goes on with {began}, which it began with"));
        }
        let pinned = began.as_ref().map(|began| Pinned {
            commit: began.commit.clone(),
            files: began.files.iter().map(|file| (file.file.clone(), file.bytes)).collect(),
        });
        let of_repository = format!("{}@{}", repo.page(), repo.revision);
        let known = self.commits.get(&of_repository).cloned();
        let repo = HubRepo { revision: known.as_deref().filter(|_| pinned.is_none()).unwrap_or(repo.revision), ..repo };
        let mut shown = Shown::new(self.progress, name);
        let snapshot = hub.fetch(repo, pinned.as_ref(), self.stopped, &mut |done, total| shown.advance(done, total)).map_err(remote)?;
        let files = store::hash_files(&snapshot.folder, &snapshot.files)?;
        shown.finish(&format!("{written}, commit {}, {} files", snapshot.commit, files.len()));
        if let Some(began) = &began {
            check_files(written, &began.files, &files, "remove it from the cache to fetch it again")?;
        }
        self.commits.insert(of_repository, snapshot.commit.clone());
        Ok((snapshot.folder, Source { commit: snapshot.commit, files, ..Source::default() }))
    }

    /// The files of an address, in order.
    fn table(&mut self, name: &str, written: &str, address: &Address) -> Result<(Vec<PathBuf>, Source), RunError> {
        match address {
            Address::Hub { repo, revision, files } => {
                let pattern =
                    Pattern::new(files).map_err(|error| RunError::Internal { place: "run::fetch", problem: error.to_string() })?;
                let repo = HubRepo { repo, revision, files: HubFiles::Dataset(&pattern) };
                let (folder, source) = self.repository(name, written, repo)?;
                Ok((source.files.iter().map(|file| folder.join(&file.file)).collect(), source))
            }
            Address::Web { url } => self.web(name, url),
            #[cfg(feature = "s3")]
            Address::S3 { bucket, keys } => self.s3(name, written, bucket, keys),
            #[cfg(not(feature = "s3"))]
            Address::S3 { .. } => Err(RunError::Internal { place: "run::fetch", problem: format!("{written} in a program without s3") }),
        }
    }

    /// The file of a web server.
    fn web(&mut self, name: &str, url: &str) -> Result<(Vec<PathBuf>, Source), RunError> {
        let record = recorded(url);
        let began = self.began(&record)?;
        let written = shown(url);
        let downloads = downloads(&mut self.downloads, &mut self.hub)?;
        let pinned = began.as_ref().map(Source::pinned).and_then(|files| files.into_iter().next());
        if let Some(pinned) = &pinned
            && let Some(now) = downloads.web_version(url).filter(|now| *now != pinned.version)
        {
            let version = &pinned.version;
            self.progress.warned(name, &format!("{written} is another file now ({now}, was {version}); {GOES_ON}"));
        }
        let mut progress = Shown::new(self.progress, name);
        let found = downloads.web(url, &record, pinned.as_ref(), self.stopped, &mut |done, total| progress.advance(done, total));
        let found =
            found.map_err(|error| if is_recorded(url) && error.is_input() { without_query(&written, &error) } else { remote(error) })?;
        progress.finish(&format!("{written}, {}", found.version));
        let source = Source::of_downloads(std::slice::from_ref(&found))?;
        if let Some(began) = &began {
            check_files(&written, &began.files, &source.files, NEW_NAME)?;
        }
        Ok((vec![found.path], source))
    }

    /// Objects of S3.
    #[cfg(feature = "s3")]
    fn s3(&mut self, name: &str, written: &str, bucket: &str, keys: &str) -> Result<(Vec<PathBuf>, Source), RunError> {
        let began = self.began(written)?;
        let downloads = downloads(&mut self.downloads, &mut self.hub)?;
        let pinned = began.as_ref().map(Source::pinned);
        if let Some(pinned) = &pinned
            && let Some(now) = downloads.s3_versions(bucket, keys, self.stopped)
            && !now.iter().map(|(key, version)| (key, version)).eq(pinned.iter().map(|file| (&file.name, &file.version)))
        {
            self.progress.warned(name, &format!("{written} has other objects now; {GOES_ON}"));
        }
        let mut progress = Shown::new(self.progress, name);
        let mut advance = |done, total| progress.advance(done, total);
        let found = downloads.s3(bucket, keys, pinned.as_deref(), self.stopped, &mut advance).map_err(remote)?;
        progress.finish(&format!("{written}, {} objects", found.len()));
        let source = Source::of_downloads(&found)?;
        if let Some(began) = &began {
            check_files(written, &began.files, &source.files, NEW_NAME)?;
        }
        Ok((found.into_iter().map(|file| file.path).collect(), source))
    }

    /// The source at the start of the run.
    fn began(&mut self, written: &str) -> Result<Option<Source>, RunError> {
        let began = match &mut self.began {
            Some(began) => began,
            slot => slot.insert(pinned_sources(self.run)?),
        };
        Ok(began.get(written).cloned())
    }

    /// Fetches the base of the adapter in `folder`, if this is an adapter with a base on the hub.
    fn base(&mut self, name: &str, folder: &Path) -> Result<Option<(PathBuf, String, Source)>, RunError> {
        let Some(HubBase { repo, revision }) = model::hub_base_of(folder).map_err(OperatorError::from)? else { return Ok(None) };
        let problem = |problem: String| {
            let of_adapter = format!("{}: the adapter's base_model_name_or_path is \"{repo}\"", folder.display());
            RunError::Operator(OperatorError::Input(format!("{of_adapter}, which is no directory here; {problem}")))
        };
        let written = format!("hf://{repo}@{revision}");
        let (fetched, source) = match self.repository(name, &written, HubRepo { repo: &repo, revision: &revision, files: HubFiles::Model })
        {
            Err(RunError::Operator(error)) if error.is_input() => return Err(problem(format!("on the hub: {error}"))),
            fetched => fetched?,
        };
        // The branch in the cache may be ahead of the commit that the run began with.
        match model::base_of(folder).map_err(OperatorError::from)? {
            Some(found) if found == fetched => Ok(Some((fetched, written, source))),
            found => {
                let found = found.map_or("none".to_string(), |found| found.display().to_string());
                Err(problem(format!(
                    "expected the cached model that this run began with, {}, found {found}; set `revision` in adapter_config.json to its commit",
                    fetched.display()
                )))
            }
        }
    }
}

impl Source {
    /// Files of the cache of downloads, hashed.
    fn of_downloads(found: &[Download]) -> Result<Self, RunError> {
        let mut files = Vec::with_capacity(found.len());
        for download in found {
            let folder = download.path.parent().unwrap_or(Path::new(""));
            let name = download.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // By the server's name: objects of several folders may have the same last part.
            let hashed = store::hash_files(folder, &[name])?.into_iter();
            files.extend(hashed.map(|file| ModelFile { file: download.name.clone(), ..file }));
        }
        Ok(Self { versions: found.iter().map(|download| download.version.clone()).collect(), files, ..Self::default() })
    }

    /// The downloads of an earlier fetch.
    fn pinned(&self) -> Vec<PinnedFile> {
        let pinned =
            |(file, version): (&ModelFile, &String)| PinnedFile { name: file.file.clone(), version: version.clone(), bytes: file.bytes };
        self.files.iter().zip(&self.versions).map(pinned).collect()
    }
}

/// The cache of downloads, from the environment at its first use.
fn downloads<'a>(slot: &'a mut Option<Downloads>, of_hub: &mut Option<Hub>) -> Result<&'a Downloads, RunError> {
    Ok(match slot {
        Some(downloads) => downloads,
        slot => slot.insert(Downloads::from_env(hub(of_hub)?.credentials()).map_err(remote)?),
    })
}

/// The hub, from the environment at its first use.
fn hub(slot: &mut Option<Hub>) -> Result<&Hub, RunError> {
    Ok(match slot {
        Some(hub) => hub,
        slot => slot.insert(Hub::from_env().map_err(remote)?),
    })
}

/// The error of an address from a run folder, which has only a hash of its query.
fn without_query(written: &str, error: &RemoteError) -> RunError {
    let problem =
        "expected the query of the address, found its hash, as run folders have it; use the pipeline file that the run was made with";
    RunError::Operator(OperatorError::Input(format!("{written}: {problem} ({error})")))
}

fn remote(error: RemoteError) -> RunError {
    RunError::Operator(OperatorError::from(error))
}

/// The progress of a download, shown once bytes arrive.
struct Shown<'a> {
    progress: &'a dyn Progress,
    name: &'a str,
    start: Instant,
    is_shown: bool,
}

impl<'a> Shown<'a> {
    fn new(progress: &'a dyn Progress, name: &'a str) -> Self {
        Self { progress, name, start: Instant::now(), is_shown: false }
    }

    fn advance(&mut self, done: u64, total: u64) {
        if !std::mem::replace(&mut self.is_shown, true) {
            self.progress.started(self.name, "MB", 0, total / MEGABYTE);
        }
        self.progress.advanced(self.name, done / MEGABYTE, 0);
    }

    fn finish(&self, summary: &str) {
        if self.is_shown {
            self.progress.finished(self.name, summary, self.start.elapsed().as_secs_f64());
        }
    }
}

/// The fetched sources at the start of the run, from `sources.json`.
fn pinned_sources(run: &Run) -> Result<BTreeMap<String, Source>, RunError> {
    let text = run.read_sources()?.unwrap_or_else(|| "{}".to_string());
    let failed = |error| OperatorError::Input(format!("{}: sources.json: expected what the run began with, found {error}", run.name()));
    Ok(serde_json::from_str(&text).map_err(failed)?)
}

/// Compares files with those at the start of the run.
fn check_files(written: &str, began: &[ModelFile], found: &[ModelFile], advice: &str) -> Result<(), OperatorError> {
    for file in began {
        match found.iter().find(|other| other.file == file.file) {
            Some(other) if other == file => {}
            found => {
                let found =
                    found.map_or("none".to_string(), |other| format!("one with blake3 {}", other.blake3.get(..12).unwrap_or_default()));
                let name = &file.file;
                return Err(OperatorError::Input(format!(
                    "{written}: expected the {name} that this run began with (blake3 {}), found {found}; {advice}",
                    file.blake3.get(..12).unwrap_or_default()
                )));
            }
        }
    }
    Ok(())
}

/// The text of `sources.json`; `None` if nothing was fetched.
pub(super) fn to_json(sources: &BTreeMap<String, Source>) -> Result<Option<String>, RunError> {
    if sources.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string_pretty(sources);
    let text = text.map_err(|error| RunError::Internal { place: "run::fetch::to_json", problem: error.to_string() })?;
    Ok(Some(format!("{text}\n")))
}
