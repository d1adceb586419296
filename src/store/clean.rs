//! What can be deleted: found first, removed when the user says so, never what a locked run uses.

use std::collections::HashSet;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoint::Outlived;
use super::{Run, RunLock, Runs, StoreError, checkpoint, files, lock};
use crate::disk;
use crate::tables::TableKind;

/// Something that no run needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// The file or folder.
    pub path: PathBuf,
    /// How much space its files take.
    pub bytes: u64,
    /// Why it is not needed, and what is lost with it.
    pub why: &'static str,
}

/// Why something in flight is garbage when nobody has the lock.
const KILLED: &str = "left by a process that was killed";

/// The runs that could be locked, and the cache if no run is at work: only then may it be touched. A run that begins now waits for it.
struct Locks {
    runs: Vec<RunLock>,
    cache: Option<disk::File>,
}

impl Runs {
    /// Everything that can be deleted now, by path. Runs that are in use are left out, and the cache while any of them is.
    ///
    /// # Errors
    /// Folders or manifests cannot be read.
    pub fn garbage(&self) -> Result<Vec<Garbage>, StoreError> {
        let locks = self.lock_all()?;
        self.garbage_of(&locks)
    }

    /// Deletes those of `garbage` that still can be. Returns how many bytes their files took.
    ///
    /// # Errors
    /// Folders or manifests cannot be read, or a file cannot be removed.
    pub fn remove(&self, garbage: &[Garbage]) -> Result<u64, StoreError> {
        let locks = self.lock_all()?;
        let paths: HashSet<&Path> = garbage.iter().map(|garbage| garbage.path.as_path()).collect();
        let mut bytes = 0;
        let garbage = self.garbage_of(&locks)?;
        for (number, still) in garbage.iter().filter(|still| paths.contains(still.path.as_path())).enumerate() {
            // A finished output vanishes at once: one that is half removed would look damaged.
            let trash = self.cache().join(format!("tmp-clean-{number}"));
            if still.path.parent() == Some(&self.cache()) && !trash.exists() {
                files::rename(&still.path, &trash)?;
                files::remove(&trash)?;
            } else {
                files::remove(&still.path)?;
            }
            bytes += still.bytes;
        }
        Ok(bytes)
    }

    fn garbage_of(&self, locks: &Locks) -> Result<Vec<Garbage>, StoreError> {
        let mut found = Vec::new();
        for run in &locks.runs {
            for path in files::list(&run.folder().join("quarantine"))? {
                found.push(Garbage { bytes: files::size(&path)?, path, why: "damaged, made anew since" });
            }
            for path in files::list(&run.partial())?.into_iter().filter(|path| !checkpoint::is_checkpoint(path)) {
                found.push(Garbage { bytes: files::size(&path)?, path, why: KILLED });
            }
            found.extend(old_checkpoints(run)?);
        }
        if locks.cache.is_some() {
            found.extend(self.unused_cache()?);
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// What is in the cache and in no run. For use while no run is locked by others.
    fn unused_cache(&self) -> Result<Vec<Garbage>, StoreError> {
        let (mut used, mut inputs) = (HashSet::new(), HashSet::new());
        for name in self.names()? {
            for (_, manifest) in self.run(&name)?.manifests()? {
                inputs.extend(manifest.recipe.inputs.values().flatten().map(|fingerprint| fingerprint.to_string()));
                used.insert(manifest.fingerprint.to_string());
            }
        }
        let mut found = Vec::new();
        let kept = self.kept_folder(TableKind::Logprobs);
        for path in files::list(&kept)?.into_iter().filter(|path| !inputs.contains(&files::file_name(path))) {
            found.push(Garbage { bytes: files::size(&path)?, path, why: "logprobs under a reference that no run has any more" });
        }
        for path in files::list(&self.cache())?.into_iter().filter(|path| *path != kept) {
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

    /// Locks every run that is not in use, and the cache if none is.
    fn lock_all(&self) -> Result<Locks, StoreError> {
        let names = self.names()?;
        let mut locks = Locks { runs: Vec::new(), cache: None };
        if self.cache().is_dir() {
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

/// Checkpoints whose model is finished with another recipe.
fn old_checkpoints(run: &Run) -> Result<Vec<Garbage>, StoreError> {
    let mut found = Vec::new();
    for path in files::list(&run.partial())?.into_iter().filter(|path| checkpoint::is_checkpoint(path)) {
        if checkpoint::outlived(run, &path)? == Some(Outlived::Changed) {
            found.push(Garbage { bytes: files::size(&path)?, path, why: "a checkpoint of settings that were changed since" });
        }
    }
    Ok(found)
}
