//! The folder of runs, and one run in it, for reading.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::Manifest;
use super::output_key::check_name;
use super::{Checkpoint, OutputKey, OutputKind, StoreError, checkpoint, checksum, files};
use crate::dag::fingerprint::{Fingerprint, Recipe};

/// The file that says what was fetched for a run.
pub(super) const SOURCES: &str = "sources.json";
/// The file with the pipeline as resolved.
pub(super) const PIPELINE: &str = "pipeline.yaml";

/// A folder of runs that share a cache.
#[derive(Clone, Debug)]
pub struct Runs {
    root: PathBuf,
}

impl Runs {
    /// The runs in `root`, usually `runs/`. The folder is made with the first run.
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

    /// The run `name`, whether it exists or not.
    ///
    /// # Errors
    /// The name is not a plain file name.
    pub fn run(&self, name: &str) -> Result<Run, StoreError> {
        check_name("run", name)?;
        let folder = self.root.join(name);
        Ok(Run { inner: Arc::new(Inner { runs: self.clone(), name: name.to_string(), folder, verified: Mutex::default() }) })
    }

    /// The run that a user names: a folder with a run in it, or the name of one of these runs.
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

    /// The names of the runs that exist, sorted.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let folders = files::list(&self.root)?.into_iter().filter(|path| path.is_dir());
        Ok(folders.map(|path| files::file_name(&path)).filter(|name| check_name("run", name).is_ok()).collect())
    }

    /// Where finished outputs are.
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join(".cache")
    }
}

/// One run. Cheap to clone; clones share what they know to be undamaged.
#[derive(Clone, Debug)]
pub struct Run {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runs: Runs,
    name: String,
    folder: PathBuf,
    /// Files whose bytes this process has compared with their hash, or written itself: path and hash.
    verified: Mutex<HashSet<(PathBuf, String)>>,
}

/// How far an output is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Finished, in the run's folder.
    Complete,
    /// Finished by another run or earlier, in the cache: [`super::RunLock::adopt`] brings it in.
    Cached,
    /// Some parts are there (for a model: the steps of its last checkpoint).
    Partial {
        /// Parts or steps that are done.
        done: u64,
        /// Parts or steps in all.
        of: u64,
    },
    /// The folder has the output of another recipe; [`Recipe::differences_from`] says how it differs.
    Stale {
        /// The recipe of what is there.
        old: Box<Recipe>,
    },
    /// Nothing is there.
    Absent,
}

impl Run {
    /// The run in `folder`, for a path given by the user.
    ///
    /// # Errors
    /// The folder has no plain name.
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

    /// Whether the run's folder is there.
    pub fn exists(&self) -> bool {
        self.folder().is_dir()
    }

    /// The runs this one shares its cache with.
    pub fn runs(&self) -> &Runs {
        &self.inner.runs
    }

    /// The folder of an output: `tables/<name>[/iteration=N]` or `models/<name>[/iteration=N]`.
    pub fn path(&self, place: &OutputKey) -> PathBuf {
        self.folder().join(place.relative_path())
    }

    /// The text of `sources.json`; `None` if nothing was fetched for the run.
    ///
    /// # Errors
    /// The file cannot be read, or was changed.
    pub fn read_sources(&self) -> Result<Option<String>, StoreError> {
        let way_on = "put it back, or remove it to go on with what the revisions are at now";
        let path = self.folder().join(SOURCES);
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        checksum::JSON.open(&bytes).map(Some).map_err(|found| StoreError::Changed { path, found, way_on })
    }

    /// The run's `pipeline.yaml`, after its seal was checked.
    ///
    /// # Errors
    /// The file cannot be read, or was changed.
    pub fn pipeline_file(&self) -> Result<PathBuf, StoreError> {
        let path = self.folder().join(PIPELINE);
        let found = match files::read(&path)? {
            Some(bytes) => checksum::YAML.open(&bytes).map(drop),
            None => Err("no such file".to_string()),
        };
        let way_on = "run the pipeline again to have it written anew";
        found.map(|()| path.clone()).map_err(|found| StoreError::Changed { path, found, way_on })
    }

    /// What is in the output's folder; `None` if it has no manifest.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn manifest(&self, place: &OutputKey) -> Result<Option<Manifest>, StoreError> {
        place.check()?;
        Manifest::read(&self.path(place))
    }

    /// Every output of the run that has a manifest, tables first, by name and iteration.
    ///
    /// # Errors
    /// A folder cannot be listed or a manifest cannot be read.
    pub fn manifests(&self) -> Result<Vec<(OutputKey, Manifest)>, StoreError> {
        let with_manifest = |place: OutputKey| Ok(self.manifest(&place)?.map(|manifest| (place, manifest)));
        self.places()?.into_iter().map(with_manifest).filter_map(Result::transpose).collect()
    }

    /// The place of every folder that could be an output's, in the same order.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn places(&self) -> Result<Vec<OutputKey>, StoreError> {
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
                    let place = OutputKey { kind, name: name.clone(), iteration };
                    found.extend(place.check().is_ok().then_some(place));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// How far the output of `recipe` is. A glance at names and lengths, for plans; [`super::RunLock::verify`] compares the bytes.
    ///
    /// # Errors
    /// A manifest cannot be read.
    pub fn state(&self, place: &OutputKey, recipe: &Recipe) -> Result<State, StoreError> {
        let fingerprint = recipe.fingerprint();
        let folder = self.path(place);
        let here = self.manifest(place)?;
        let ours = here.as_ref().filter(|manifest| manifest.fingerprint == fingerprint);
        if ours.is_some_and(|manifest| manifest.looks_complete(&folder)) {
            return Ok(State::Complete);
        }
        let entry = self.cache_entry(&fingerprint);
        if let Ok(Some(manifest)) = Manifest::read(&entry)
            && manifest.kind == place.kind
            && manifest.looks_complete(&entry)
        {
            return Ok(State::Cached);
        }
        let partial = |manifest: &Manifest, folder: &Path| State::Partial { done: manifest.present(folder), of: manifest.part_count };
        if let Some(manifest) = ours.filter(|_| place.kind == OutputKind::Table) {
            return Ok(partial(manifest, &folder));
        }
        let aside = self.aside(&fingerprint);
        if let (OutputKind::Table, Ok(Some(manifest))) = (place.kind, Manifest::read(&aside)) {
            return Ok(partial(&manifest, &aside));
        }
        if let Some(checkpoint) = checkpoint::newest(self, &fingerprint)? {
            return Ok(State::Partial { done: checkpoint.done, of: checkpoint.of });
        }
        match here {
            Some(manifest) if ours.is_none() => Ok(State::Stale { old: Box::new(manifest.recipe.clone()) }),
            _ => Ok(State::Absent),
        }
    }

    /// The recipe's last checkpoint, by what it says of itself; its bytes are not compared.
    ///
    /// # Errors
    /// The folder of checkpoints cannot be listed.
    pub fn newest_checkpoint(&self, fingerprint: &Fingerprint) -> Result<Option<Checkpoint>, StoreError> {
        checkpoint::newest(self, fingerprint)
    }

    /// The folder of a finished output in the cache.
    pub(super) fn cache_entry(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.runs().cache().join(fingerprint.as_str())
    }

    /// The folder of an unfinished table in the cache.
    pub(super) fn aside(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.runs().cache().join(format!("{fingerprint}.partial"))
    }

    /// Files in flight, models in the making, checkpoints.
    pub(super) fn partial(&self) -> PathBuf {
        self.folder().join(".partial")
    }

    /// Whether this process has compared every file of the manifest before, and all are still there.
    pub(super) fn is_verified(&self, folder: &Path, manifest: &Manifest) -> bool {
        let verified = self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let all = manifest.listed().all(|listed| verified.contains(&(folder.join(listed.file), listed.blake3.to_string())));
        all && manifest.present(folder) == manifest.listed().count() as u64
    }

    /// Remembers that every file of the manifest is right.
    pub(super) fn remember(&self, folder: &Path, manifest: &Manifest) {
        let mut verified = self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.extend(manifest.listed().map(|listed| (folder.join(listed.file), listed.blake3.to_string())));
    }
}
