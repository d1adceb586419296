//! The lock of a run: one writing process at a time. The system releases it when the process dies.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::run::{PIPELINE, SOURCES};
use super::{Event, Journal, Quarantined, Run, Runs, StoreError, checksum, files};
use crate::disk;

/// The lock's file name, in the run's folder and in the cache's.
pub(super) const FILE: &str = "lock";

/// A run with the right to write. It dereferences to its [`Run`] for reading.
#[derive(Debug)]
pub struct RunLock {
    run: Run,
    /// The lock file; the lock ends when it closes.
    _file: disk::File,
    /// The shared lock of the cache. `None` while this process cleans the cache.
    pub(super) _cache: Option<disk::File>,
    /// One line at a time: nodes run in parallel.
    journal: Mutex<Journal>,
    temporaries: AtomicU64,
    /// The damage of the journal at the time of locking.
    pub(super) damaged_journal: Option<Quarantined>,
}

impl Run {
    /// Takes the lock of the run alone, within `patience`. Leftovers of a killed process stay.
    pub(super) fn lock_without_cache(&self, patience: Duration) -> Result<RunLock, StoreError> {
        files::create_folder(self.folder())?;
        let path = self.folder().join(FILE);
        let failed = |error| StoreError::io("lock", path.clone())(error);
        let mut file = disk::File::open(&path).map_err(failed)?;
        match try_lock(file.as_system(), patience) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // On systems without reads of locked files the holder stays unnamed.
                let holder = files::read(&path).ok().flatten().and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
                return Err(StoreError::Locked { run: self.name().to_string(), path, holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.cut(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes())).map_err(failed)?;
        let journal = Mutex::new(self.journal());
        let temporaries = AtomicU64::new(0);
        Ok(RunLock { run: self.clone(), _file: file, _cache: None, journal, temporaries, damaged_journal: None })
    }

    /// Whether some process, including this one, writes the run. It needs no right to write.
    /// `None` where it is unknown: the file system has no locks, or the lock's file is closed to
    /// this user.
    pub fn is_locked(&self) -> Option<bool> {
        let file = match File::open(self.folder().join(FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Some(false),
            file => file.ok()?,
        };
        match file.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }
}

/// Takes a lock within this time.
fn try_lock(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if start.elapsed() < patience => std::thread::sleep(patience / 100),
            result => return result,
        }
    }
}

impl Runs {
    /// Opens the lock file of the cache. Runs hold it shared; a cleaner holds it alone.
    pub(super) fn cache_lock(&self) -> Result<(PathBuf, disk::File), StoreError> {
        files::create_folder(&self.cache_folder())?;
        let path = self.cache_folder().join(FILE);
        let file = disk::File::open(&path).map_err(StoreError::io("lock", &path))?;
        Ok((path, file))
    }
}

impl RunLock {
    /// Removes a file or folder in one step: a half removed one would look damaged.
    pub(super) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let trash = self.temporary()?;
        match files::rename(path, &trash) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result.and_then(|()| files::remove(&trash)),
        }
    }

    /// The damage of the journal, found and moved aside when the lock was taken.
    pub fn damaged_journal(&self) -> Option<&Quarantined> {
        self.damaged_journal.as_ref()
    }

    /// Appends an event to the journal and flushes it to disk.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record(&self, event: Event) -> Result<(), StoreError> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(&event)
    }

    /// Replaces `pipeline.yaml`, the resolved pipeline of the run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pipeline(&self, text: &str) -> Result<(), StoreError> {
        files::replace(&self.folder().join(PIPELINE), checksum::YAML.add(text).as_bytes(), &self.temporary()?)
    }

    /// Replaces `sources.json`: the fetched models with their commits, for use by a resumed run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_sources(&self, text: &str) -> Result<(), StoreError> {
        files::replace(&self.folder().join(SOURCES), checksum::JSON.add(text).as_bytes(), &self.temporary()?)
    }

    /// A new path for a temporary file or folder. The next lock of the run removes leftovers there.
    ///
    /// # Errors
    /// The parent folder cannot be created.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        let folder = self.partial();
        files::create_folder(&folder)?;
        Ok(folder.join(format!("tmp-{}", self.temporaries.fetch_add(1, Ordering::Relaxed))))
    }

    /// A new path for a temporary file or folder in the cache's folder. Its name contains the run's
    /// name: the holder of the run's lock may remove it.
    pub(super) fn cache_temporary(&self) -> Result<PathBuf, StoreError> {
        let folder = self.runs().cache_folder();
        files::create_folder(&folder)?;
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        Ok(folder.join(format!("tmp-{}-{number}", self.name())))
    }
}

impl Deref for RunLock {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}
