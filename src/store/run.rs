//! The folder of runs, and the reading side of one run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::{Manifest, Site};
use super::name::{check_key, check_name};
use super::{OutputKey, OutputKind, StoreError, checksum, files};
use crate::dag::fingerprint::Fingerprint;

/// The file with the fetched models of a run.
pub(super) const SOURCES: &str = "sources.json";
/// The file with the resolved pipeline.
pub(super) const PIPELINE: &str = "pipeline.yaml";

/// A folder of runs with a common cache.
#[derive(Clone, Debug)]
pub struct Runs {
    root: PathBuf,
}

impl Runs {
    /// The runs in `root`, usually `runs/`. The first run creates the folder.
    ///
    /// # Errors
    /// The current folder is unknown and `root` is relative.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = root.as_ref();
        Ok(Self { root: std::path::absolute(root).map_err(StoreError::io("find", root))? })
    }

    /// The absolute path of the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run `name`; it need not exist.
    ///
    /// # Errors
    /// The name is not a plain file name.
    pub fn run(&self, name: &str) -> Result<Run, StoreError> {
        check_name("run", name)?;
        let folder = self.root.join(name);
        Ok(Run { inner: Arc::new(Inner { runs: self.clone(), name: name.to_string(), folder, verified: Mutex::default() }) })
    }

    /// The run named by a user: by its name here, or by the path of its folder.
    ///
    /// # Errors
    /// There is no such run.
    pub fn find(&self, name: &Path) -> Result<Run, StoreError> {
        let run = match name.to_str() {
            Some(plain) if check_name("run", plain).is_ok() && self.root.join(plain).is_dir() => self.run(plain)?,
            _ => Run::at(name)?,
        };
        if !run.exists() {
            let names = self.names()?;
            let there = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            let problem = format!("expected the name or the folder of a run, found neither; runs in {}: {there}", self.root.display());
            return Err(StoreError::Input { path: name.to_path_buf(), line: None, problem });
        }
        Ok(run)
    }

    /// The names of the existing runs, sorted.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let folders = files::list(&self.root)?.into_iter().filter(|path| path.is_dir());
        Ok(folders.map(|path| files::file_name(&path)).filter(|name| check_name("run", name).is_ok()).collect())
    }

    /// The folder of the cache.
    pub(super) fn cache_folder(&self) -> PathBuf {
        self.root.join(".cache")
    }
}

/// One run. Cheap to clone; clones share the list of verified files.
#[derive(Clone, Debug)]
pub struct Run {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runs: Runs,
    name: String,
    folder: PathBuf,
    /// Files verified or written by this process: path and hash.
    verified: Mutex<HashSet<(PathBuf, String)>>,
}

impl Run {
    /// The run in `folder`, a path from the user.
    ///
    /// # Errors
    /// The folder's name is not a plain file name.
    pub fn at(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = std::path::absolute(folder.as_ref()).map_err(StoreError::io("find", folder.as_ref()))?;
        Runs::open(folder.parent().unwrap_or(&folder))?.run(&files::file_name(&folder))
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The run's folder, absolute.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// Whether the run's folder exists.
    pub fn exists(&self) -> bool {
        self.folder().is_dir()
    }

    /// The folder of runs around this run, with the common cache.
    pub fn runs(&self) -> &Runs {
        &self.inner.runs
    }

    /// The folder of an output: `tables/<name>[/iteration=N]` or `models/<name>[/iteration=N]`.
    pub fn path(&self, key: &OutputKey) -> PathBuf {
        self.folder().join(key.relative_path())
    }

    /// The folder of an output, and the place of its manifest.
    pub(super) fn site(&self, key: &OutputKey) -> Site {
        Site::of_run(self.folder(), key)
    }

    /// The text of `sources.json`; `None` if the run fetched nothing.
    ///
    /// # Errors
    /// The file cannot be read, or was changed.
    pub fn read_sources(&self) -> Result<Option<String>, StoreError> {
        let way_on = "put it back, or remove it to go on with what the revisions are at now";
        let path = self.folder().join(SOURCES);
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        checksum::JSON.verify(&bytes).map(Some).map_err(|found| StoreError::Changed { path, found, way_on })
    }

    /// The path of the run's `pipeline.yaml`, with a verified checksum.
    ///
    /// # Errors
    /// The file cannot be read, or was changed.
    pub fn pipeline_file(&self) -> Result<PathBuf, StoreError> {
        let path = self.folder().join(PIPELINE);
        let found = match files::read(&path)? {
            Some(bytes) => checksum::YAML.verify(&bytes).map(drop),
            None => Err("no such file".to_string()),
        };
        let way_on = "run the pipeline again to have it written anew";
        found.map(|()| path.clone()).map_err(|found| StoreError::Changed { path, found, way_on })
    }

    /// The manifest of an output; `None` if it has none.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn manifest(&self, key: &OutputKey) -> Result<Option<Manifest>, StoreError> {
        check_key(key)?;
        Manifest::read(&self.site(key))
    }

    /// Every output of the run with a manifest: tables first, by name and iteration.
    ///
    /// # Errors
    /// A folder cannot be listed or a manifest cannot be read.
    pub fn manifests(&self) -> Result<Vec<(OutputKey, Manifest)>, StoreError> {
        let with_manifest = |key: OutputKey| Ok(self.manifest(&key)?.map(|manifest| (key, manifest)));
        self.output_keys()?.into_iter().map(with_manifest).filter_map(Result::transpose).collect()
    }

    /// The key of every possible output folder, in the same order.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn output_keys(&self) -> Result<Vec<OutputKey>, StoreError> {
        let mut found = Vec::new();
        for kind in [OutputKind::Table, OutputKind::Model] {
            for folder in files::list(&self.folder().join(kind.folder()))? {
                let name = files::file_name(&folder);
                let iterations = files::list(&folder)?
                    .iter()
                    .filter_map(|path| OutputKey::iteration_of(&files::file_name(path)))
                    .map(Some)
                    .collect::<Vec<_>>();
                for iteration in [None].into_iter().chain(iterations) {
                    let key = OutputKey { kind, name: name.clone(), iteration };
                    if check_key(&key).is_ok() {
                        found.push(key);
                    }
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The folder of a finished output in the cache.
    pub(super) fn cache_entry(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.runs().cache_folder().join(fingerprint.as_str())
    }

    /// The folder of an unfinished table in the cache.
    pub(super) fn unfinished_cache_entry(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.runs().cache_folder().join(format!("{fingerprint}.partial"))
    }

    /// The folder of temporary files, unfinished models and checkpoints.
    pub(super) fn partial(&self) -> PathBuf {
        self.folder().join(".partial")
    }

    /// Whether this process has verified every file of the manifest before, and all files still
    /// exist.
    pub(super) fn is_verified(&self, folder: &Path, manifest: &Manifest) -> bool {
        let verified = self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let all = manifest.listed().all(|listed| verified.contains(&(folder.join(listed.file), listed.blake3.to_string())));
        all && manifest.present(folder) == manifest.listed().count() as u64
    }

    /// Marks every file of the manifest as verified.
    pub(super) fn remember(&self, folder: &Path, manifest: &Manifest) {
        let mut verified = self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.extend(manifest.listed().map(|listed| (folder.join(listed.file), listed.blake3.to_string())));
    }
}
