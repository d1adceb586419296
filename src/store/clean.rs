//! Finds unused files, and deletes them after confirmation. Files of locked runs stay.

use std::collections::HashSet;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoint::Obsolete;
use super::{Run, RunLock, Runs, StoreError, checkpoint, files, lock, quarantine, work};
use crate::disk;
use crate::tables::TableKind;

/// A file or folder without use for any run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// The file or folder.
    pub path: PathBuf,
    /// The size of its files in bytes.
    pub bytes: u64,
    /// The reason.
    pub why: &'static str,
}

/// The reason for a temporary file of an unlocked run.
const KILLED: &str = "left by a process that was killed";

/// The locks of all idle runs, and of the cache if every run is idle. Only then may the cache
/// change. A new run waits for it.
struct Locks {
    runs: Vec<RunLock>,
    cache: Option<disk::File>,
}

impl Runs {
    /// All unused files, by path. Runs in use are skipped; with any run in use, the cache is
    /// skipped too.
    ///
    /// # Errors
    /// Folders or manifests cannot be read.
    pub fn garbage(&self) -> Result<Vec<Garbage>, StoreError> {
        let locks = self.lock_all()?;
        self.find_garbage(&locks)
    }

    /// Deletes the items of `garbage` if they are still unused. Returns their size in bytes.
    ///
    /// # Errors
    /// Folders or manifests cannot be read, or a file cannot be removed.
    pub fn remove(&self, garbage: &[Garbage]) -> Result<u64, StoreError> {
        let locks = self.lock_all()?;
        let paths: HashSet<&Path> = garbage.iter().map(|garbage| garbage.path.as_path()).collect();
        let mut bytes = 0;
        let garbage = self.find_garbage(&locks)?;
        for (number, still) in garbage.iter().filter(|still| paths.contains(still.path.as_path())).enumerate() {
            // One step for a finished output: a half removed one would look damaged.
            let trash = self.cache_folder().join(format!("tmp-clean-{number}"));
            if still.path.parent() == Some(&self.cache_folder()) && !trash.exists() {
                files::rename(&still.path, &trash)?;
                files::remove(&trash)?;
            } else {
                files::remove(&still.path)?;
            }
            bytes += still.bytes;
        }
        Ok(bytes)
    }

    fn find_garbage(&self, locks: &Locks) -> Result<Vec<Garbage>, StoreError> {
        let mut found = Vec::new();
        for run in &locks.runs {
            for path in files::list(&run.folder().join(quarantine::FOLDER))? {
                found.push(Garbage { bytes: files::size(&path)?, path, why: "damaged, made anew since" });
            }
            let is_temporary = |path: &PathBuf| !checkpoint::is_checkpoint(path) && !work::is_work(path);
            for path in files::list(&run.partial())?.into_iter().filter(is_temporary) {
                found.push(Garbage { bytes: files::size(&path)?, path, why: KILLED });
            }
            found.extend(old_checkpoints(run)?);
            found.extend(old_work(run)?);
        }
        if locks.cache.is_some() {
            found.extend(self.unused_cache()?);
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Cache entries without a run. For use while no other process has a run locked.
    fn unused_cache(&self) -> Result<Vec<Garbage>, StoreError> {
        let mut used = HashSet::new();
        let mut inputs = HashSet::new();
        for name in self.names()? {
            for (_, manifest) in self.run(&name)?.manifests()? {
                inputs.extend(manifest.recipe.inputs.values().flatten().map(|fingerprint| fingerprint.to_string()));
                used.insert(manifest.fingerprint.to_string());
            }
        }
        let mut found = Vec::new();
        let memo = self.memo_folder(TableKind::Logprobs);
        for path in files::list(&memo)?.into_iter().filter(|path| !inputs.contains(&files::file_name(path))) {
            found.push(Garbage { bytes: files::size(&path)?, path, why: "logprobs under a reference that no run has any more" });
        }
        // Judges' answers stay: they were paid for.
        let answers = self.memo_folder(TableKind::JudgeAnswers);
        for path in files::list(&self.cache_folder())?.into_iter().filter(|path| *path != memo && *path != answers) {
            let name = files::file_name(&path);
            let why = match name.strip_suffix(".partial") {
                None if name == lock::FILE => continue,
                Some(_) => "parts of an unfinished table, set aside when its recipe changed",
                None if name.starts_with("tmp-") => KILLED,
                None if !used.contains(&name) => "a finished output that no run has any more",
                None => continue,
            };
            found.push(Garbage { bytes: files::size(&path)?, path, why });
        }
        Ok(found)
    }

    /// Locks every idle run, and the cache if all are idle.
    fn lock_all(&self) -> Result<Locks, StoreError> {
        let names = self.names()?;
        let mut locks = Locks { runs: Vec::new(), cache: None };
        if self.cache_folder().is_dir() {
            let (path, cache) = self.cache_lock()?;
            match cache.as_system().try_lock() {
                Ok(()) => locks.cache = Some(cache),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
            }
        }
        for name in names {
            match self.run(&name)?.lock_without_cache(Duration::ZERO) {
                Ok(lock) => locks.runs.push(lock),
                Err(StoreError::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(locks)
    }
}

/// The work of commands finished with another recipe.
fn old_work(run: &Run) -> Result<Vec<Garbage>, StoreError> {
    let mut found = Vec::new();
    for path in files::list(&run.partial())?.into_iter().filter(|path| work::is_work(path)) {
        if work::obsolete(run, &path)? == Some(work::Obsolete::Changed) {
            found.push(Garbage { bytes: files::size(&path)?, path, why: "the work of a command whose settings were changed since" });
        }
    }
    Ok(found)
}

/// Checkpoints of models finished with another recipe.
fn old_checkpoints(run: &Run) -> Result<Vec<Garbage>, StoreError> {
    let mut found = Vec::new();
    for path in files::list(&run.partial())?.into_iter().filter(|path| checkpoint::is_checkpoint(path)) {
        if checkpoint::obsolete(run, &path)? == Some(Obsolete::Changed) {
            found.push(Garbage { bytes: files::size(&path)?, path, why: "a checkpoint of settings that were changed since" });
        }
    }
    Ok(found)
}
