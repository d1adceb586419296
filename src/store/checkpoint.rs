//! Checkpoints of models in the making: folders that survive a kill, replaced at once, gone when the model is finished.
//!
//! Knows nothing of what is in them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{Listed, ModelFile};
use super::{Event, EventKind, OutputKey, Quarantined, Run, RunLock, StoreError, checksum, files, quarantine};
use crate::dag::fingerprint::Fingerprint;

/// The file that makes a folder a checkpoint, written last.
const FILE: &str = "checkpoint.json";
const PREFIX: &str = "checkpoint-";

/// A state that training can go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The folder with the files.
    pub dir: PathBuf,
    /// Steps that are done.
    pub done: u64,
    /// Steps in all.
    pub of: u64,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    node: String,
    iteration: Option<u32>,
    fingerprint: Fingerprint,
    done: u64,
    of: u64,
    files: Vec<ModelFile>,
}

/// Whether a path of `.partial/` is a checkpoint's.
pub(super) fn is_checkpoint(path: &Path) -> bool {
    files::file_name(path).starts_with(PREFIX)
}

/// The recipe's last checkpoint, by its contents' word alone.
pub(super) fn newest(run: &Run, fingerprint: &Fingerprint) -> Result<Option<Checkpoint>, StoreError> {
    let mut found = Vec::new();
    for dir in all(run, fingerprint)? {
        found.extend(contents(&dir)?.ok().map(|contents| Checkpoint { dir, done: contents.done, of: contents.of }));
    }
    Ok(found.into_iter().max_by_key(|checkpoint| checkpoint.done))
}

/// Removes every checkpoint of the recipe.
pub(super) fn remove(lock: &RunLock, fingerprint: &Fingerprint) -> Result<(), StoreError> {
    all(lock, fingerprint)?.iter().try_for_each(|dir| lock.discard(dir))
}

/// Whether the model that a checkpoint belongs to is finished with its recipe, or with another one; `None` if it is not finished or the
/// checkpoint cannot be read.
pub(super) fn outlived(run: &Run, dir: &Path) -> Result<Option<Outlived>, StoreError> {
    let Ok(contents) = contents(dir)? else { return Ok(None) };
    let manifest = run.manifest(&OutputKey::model(contents.node, contents.iteration))?.filter(|manifest| manifest.complete);
    Ok(manifest.map(|manifest| if manifest.fingerprint == contents.fingerprint { Outlived::Finished } else { Outlived::Changed }))
}

/// Why a checkpoint is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlived {
    /// Its model is finished.
    Finished,
    /// Its model is finished with another recipe.
    Changed,
}

fn all(run: &Run, fingerprint: &Fingerprint) -> Result<Vec<PathBuf>, StoreError> {
    let prefix = format!("{PREFIX}{fingerprint}-");
    Ok(files::list(&run.partial())?.into_iter().filter(|path| files::file_name(path).starts_with(&prefix)).collect())
}

/// What a checkpoint says of itself, or what is wrong with that; an error where the file is there and cannot be read.
fn contents(dir: &Path) -> Result<Result<Contents, Quarantined>, StoreError> {
    let path = dir.join(FILE);
    let bytes = files::read(&path)?;
    let parsed = || serde_json::from_str(&checksum::JSON.open(&bytes.ok_or("no such file")?)?).map_err(|error| error.to_string());
    let wrong = |found| Quarantined { path: path.clone(), moved_to: None, expected: "what a checkpoint has".to_string(), found };
    Ok(parsed().map_err(wrong))
}

/// What is wrong with the files of a checkpoint.
pub(super) fn inspect(dir: &Path) -> Result<Vec<Quarantined>, StoreError> {
    let contents = match contents(dir)? {
        Ok(contents) => contents,
        Err(report) => return Ok(vec![report]),
    };
    let listed = contents.files.iter().map(|file| Listed { file: &file.file, bytes: file.bytes, blake3: &file.blake3 });
    let bad: Result<Vec<_>, _> = listed.map(|listed| quarantine::inspect(dir, &listed)).collect();
    Ok(bad?.into_iter().flatten().collect())
}

impl RunLock {
    /// The recipe's last checkpoint, every file compared with its hash, and reports of damaged ones, which were moved aside.
    ///
    /// # Errors
    /// Files cannot be read or moved.
    pub fn checkpoint(&self, place: &OutputKey, fingerprint: &Fingerprint) -> Result<(Option<Checkpoint>, Vec<Quarantined>), StoreError> {
        let mut reports = Vec::new();
        for dir in all(self, fingerprint)? {
            let mut bad = inspect(&dir)?;
            if !bad.is_empty() {
                let moved_to = self.move_aside(&dir, &format!("{}-checkpoint", place.word()))?;
                bad.iter_mut().for_each(|report| report.moved_to.clone_from(&moved_to));
                self.report(place, &bad)?;
                reports.extend(bad);
            }
        }
        Ok((newest(self, fingerprint)?, reports))
    }

    /// Makes a checkpoint of what `write` puts into the empty folder it is given; the one before is then removed.
    ///
    /// `done` of `of` steps are done; `done` must be more than in the checkpoint before.
    ///
    /// # Errors
    /// Those of `write`, and files that cannot be written.
    pub fn commit_checkpoint<E: From<StoreError>>(
        &self,
        place: &OutputKey,
        fingerprint: &Fingerprint,
        done: u64,
        of: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        place.check()?;
        let made = self.temporary()?;
        files::create_folder(&made)?;
        write(&made)?;
        let dir = self.partial().join(format!("{PREFIX}{fingerprint}-{done}"));
        self.finish_checkpoint(place, fingerprint, (done, of), &made, &dir)?;
        Ok(dir)
    }

    fn finish_checkpoint(
        &self,
        place: &OutputKey,
        fingerprint: &Fingerprint,
        (done, of): (u64, u64),
        made: &Path,
        dir: &Path,
    ) -> Result<(), StoreError> {
        let older = all(self, fingerprint)?;
        let (node, iteration) = (place.name.clone(), place.iteration);
        let contents = Contents { node, iteration, fingerprint: fingerprint.clone(), done, of, files: sync_and_hash(made)? };
        let path = made.join(FILE);
        let text = serde_json::to_string_pretty(&contents)
            .map_err(|error| StoreError::Manifest { path: path.clone(), problem: error.to_string() })?;
        files::write(&path, checksum::JSON.seal(&format!("{text}\n")).as_bytes())?;
        files::sync_folder(made)?;
        self.discard(dir)?;
        files::rename(made, dir)?;
        older.iter().filter(|path| *path != dir).try_for_each(|path| self.discard(path))?;
        let mut event = Event::new(EventKind::PartCommitted, &place.name, place.iteration);
        event.part = Some(done);
        self.record(event)
    }
}

/// Has every file under `dir` on disk, and its names, and lists them.
pub(super) fn sync_and_hash(dir: &Path) -> Result<Vec<ModelFile>, StoreError> {
    let listed = files::walk(dir)?.into_iter().map(|file| {
        let path = dir.join(&file);
        files::sync(&path)?;
        let (bytes, hash) = files::hash(&path)?;
        Ok(ModelFile { file, bytes, blake3: hash.to_hex().to_string() })
    });
    let listed = listed.collect::<Result<Vec<_>, StoreError>>()?;
    files::sync_folders(dir)?;
    Ok(listed)
}
