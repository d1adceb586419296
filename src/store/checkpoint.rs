//! Checkpoints of unfinished models: folders on disk, replaced atomically, removed with the
//! finished model.
//!
//! Knows nothing of their contents.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inspect::inspect_file;
use super::manifest::ListedFile;
use super::model_files::{ModelFile, sync_and_hash};
use super::name::check_key;
use super::{Event, EventKind, OutputKey, Quarantined, Run, RunLock, StoreError, checksum, files};
use crate::dag::fingerprint::Fingerprint;

/// The file with the list of a checkpoint's files. It is written last: without it a folder is no
/// checkpoint.
const FILE: &str = "checkpoint.json";
const PREFIX: &str = "checkpoint-";

/// A saved state of training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The folder with the files.
    pub dir: PathBuf,
    /// Finished steps.
    pub done: u64,
    /// Steps in all.
    pub of: u64,
}

/// The contents of `checkpoint.json`.
#[derive(Serialize, Deserialize)]
struct Contents {
    node: String,
    iteration: Option<u32>,
    fingerprint: Fingerprint,
    done: u64,
    of: u64,
    files: Vec<ModelFile>,
}

/// Whether a path in `.partial/` is a checkpoint's.
pub(super) fn is_checkpoint(path: &Path) -> bool {
    files::file_name(path).starts_with(PREFIX)
}

/// The recipe's newest checkpoint according to `checkpoint.json`; its files are not compared.
pub(super) fn newest(run: &Run, fingerprint: &Fingerprint) -> Result<Option<Checkpoint>, StoreError> {
    let mut found = Vec::new();
    for dir in all(run, fingerprint)? {
        found.extend(contents(&dir)?.ok().map(|contents| Checkpoint { dir, done: contents.done, of: contents.of }));
    }
    Ok(found.into_iter().max_by_key(|checkpoint| checkpoint.done))
}

/// Why a checkpoint is obsolete: its model is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obsolete {
    /// With the checkpoint's recipe.
    Finished,
    /// With another recipe.
    Changed,
}

/// Whether and how a checkpoint is obsolete. `None` if its model is unfinished or the checkpoint is
/// unreadable.
pub(super) fn obsolete(run: &Run, dir: &Path) -> Result<Option<Obsolete>, StoreError> {
    let Ok(contents) = contents(dir)? else { return Ok(None) };
    let manifest = run.manifest(&OutputKey::model(contents.node, contents.iteration))?.filter(|manifest| manifest.complete);
    Ok(manifest.map(|manifest| if manifest.fingerprint == contents.fingerprint { Obsolete::Finished } else { Obsolete::Changed }))
}

/// The folders of the recipe's checkpoints.
fn all(run: &Run, fingerprint: &Fingerprint) -> Result<Vec<PathBuf>, StoreError> {
    let prefix = format!("{PREFIX}{fingerprint}-");
    Ok(files::list(&run.partial())?.into_iter().filter(|path| files::file_name(path).starts_with(&prefix)).collect())
}

/// The contents of a folder's `checkpoint.json`, or the report on an invalid one. An error if the
/// file exists and cannot be read.
fn contents(dir: &Path) -> Result<Result<Contents, Quarantined>, StoreError> {
    let path = dir.join(FILE);
    let bytes = files::read(&path)?;
    let parsed = || serde_json::from_str(&checksum::JSON.verify(&bytes.ok_or("no such file")?)?).map_err(|error| error.to_string());
    let wrong = |found| Quarantined { path: path.clone(), moved_to: None, expected: "the list of a checkpoint's files".to_string(), found };
    Ok(parsed().map_err(wrong))
}

/// Compares the files of a checkpoint with their hashes. Returns the damaged ones.
pub(super) fn inspect(dir: &Path) -> Result<Vec<Quarantined>, StoreError> {
    let contents = match contents(dir)? {
        Ok(contents) => contents,
        Err(report) => return Ok(vec![report]),
    };
    let listed = contents.files.iter().map(|file| ListedFile { file: &file.file, bytes: file.bytes, blake3: &file.blake3 });
    let bad: Result<Vec<_>, _> = listed.map(|listed| inspect_file(dir, &listed)).collect();
    Ok(bad?.into_iter().flatten().collect())
}

impl Run {
    /// The recipe's newest checkpoint according to `checkpoint.json`; its files are not compared.
    ///
    /// # Errors
    /// The folder of checkpoints cannot be listed.
    pub fn newest_checkpoint(&self, fingerprint: &Fingerprint) -> Result<Option<Checkpoint>, StoreError> {
        newest(self, fingerprint)
    }
}

/// The checkpoints of a locked run.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints<'a> {
    run: &'a RunLock,
}

impl RunLock {
    /// The run's checkpoints.
    pub fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { run: self }
    }
}

impl Checkpoints<'_> {
    /// The recipe's newest checkpoint with verified files, and reports of damaged checkpoints, now
    /// in `quarantine/`.
    ///
    /// # Errors
    /// Files cannot be read or moved.
    pub fn latest(&self, key: &OutputKey, fingerprint: &Fingerprint) -> Result<(Option<Checkpoint>, Vec<Quarantined>), StoreError> {
        let mut reports = Vec::new();
        for dir in all(self.run, fingerprint)? {
            let mut bad = inspect(&dir)?;
            if !bad.is_empty() {
                let moved_to = self.run.quarantine().move_aside(&dir, &format!("{}-checkpoint", key.word()))?;
                bad.iter_mut().for_each(|report| report.moved_to.clone_from(&moved_to));
                self.run.quarantine().report(key, &bad)?;
                reports.extend(bad);
            }
        }
        Ok((newest(self.run, fingerprint)?, reports))
    }

    /// Commits a checkpoint: `write` fills an empty folder. The previous checkpoint is then
    /// removed.
    ///
    /// `done` of `of` steps are finished; `done` must be larger than in the previous checkpoint.
    ///
    /// # Errors
    /// Those of `write`; files cannot be written.
    pub fn commit<E: From<StoreError>>(
        &self,
        key: &OutputKey,
        fingerprint: &Fingerprint,
        done: u64,
        of: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        check_key(key)?;
        let made = self.run.temporary()?;
        files::create_folder(&made)?;
        write(&made)?;
        let dir = self.run.partial().join(format!("{PREFIX}{fingerprint}-{done}"));
        self.finish(key, fingerprint, (done, of), &made, &dir)?;
        Ok(dir)
    }

    fn finish(
        &self,
        key: &OutputKey,
        fingerprint: &Fingerprint,
        (done, of): (u64, u64),
        made: &Path,
        dir: &Path,
    ) -> Result<(), StoreError> {
        let older = all(self.run, fingerprint)?;
        let files = sync_and_hash(made)?;
        let contents = Contents { node: key.name.clone(), iteration: key.iteration, fingerprint: fingerprint.clone(), done, of, files };
        let text = serde_json::to_string_pretty(&contents).map_err(|error| StoreError::internal("Checkpoints::commit", error))?;
        files::write(&made.join(FILE), checksum::JSON.add(&format!("{text}\n")).as_bytes())?;
        files::sync_folder(made)?;
        self.run.discard(dir)?;
        files::rename(made, dir)?;
        older.iter().filter(|path| *path != dir).try_for_each(|path| self.run.discard(path))?;
        let mut event = Event::new(EventKind::PartCommitted, &key.name, key.iteration);
        event.part = Some(done);
        self.run.record(event)
    }

    /// Removes every checkpoint of the recipe.
    pub(super) fn remove(&self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        all(self.run, fingerprint)?.iter().try_for_each(|dir| self.run.discard(dir))
    }
}
