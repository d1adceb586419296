//! The right to write a run: one process at a time, given back by its death.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::checkpoint::Outlived;
use super::run::SOURCES;
use super::{Event, Journal, Run, StoreError, checkpoint, files};

/// The lock's name in the run's folder.
const FILE: &str = "lock";

/// A run that this process may write. Reads like the [`Run`] it is.
#[derive(Debug)]
pub struct RunLock {
    run: Run,
    /// Held for as long as it is open.
    _file: File,
    /// One line at a time: nodes run side by side.
    journal: Mutex<Journal>,
    temporaries: AtomicU64,
}

impl Run {
    /// Takes the lock, making the run's folder if need be, and clears away what a killed process had in flight.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the process that has it.
    pub fn lock(&self) -> Result<RunLock, StoreError> {
        files::create_folder(self.folder())?;
        let path = self.folder().join(FILE);
        let failed = |error| StoreError::io("lock", path.clone())(error);
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Where a locked file cannot be read, the holder stays unnamed.
                let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(StoreError::Locked { run: self.name().to_string(), path, holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        for path in files::list(&self.partial())? {
            // An unreadable manifest is dealt with when its place is verified.
            let needed = checkpoint::is_checkpoint(&path) && !matches!(checkpoint::outlived(self, &path), Ok(Some(Outlived::Finished)));
            if !needed {
                files::remove(&path)?;
            }
        }
        let journal = self.journal();
        journal.repair()?;
        Ok(RunLock { run: self.clone(), _file: file, journal: Mutex::new(journal), temporaries: AtomicU64::new(0) })
    }

    /// Whether some process, maybe this one, writes the run.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn is_locked(&self) -> Result<bool, StoreError> {
        let path = self.folder().join(FILE);
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(StoreError::io("lock", &path))?,
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
        }
    }
}

impl RunLock {
    /// Adds a line to the journal, on disk when this returns.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record(&self, event: Event) -> Result<(), StoreError> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(&event)
    }

    /// Writes down the pipeline that the run follows, as resolved.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pipeline(&self, text: &str) -> Result<(), StoreError> {
        files::replace(&self.folder().join("pipeline.yaml"), text.as_bytes(), &self.temporary()?)
    }

    /// Replaces `sources.json`: what was fetched for the run, so that it goes on with the same.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_sources(&self, text: &str) -> Result<(), StoreError> {
        files::replace(&self.folder().join(SOURCES), text.as_bytes(), &self.temporary()?)
    }

    /// A path for a file or folder in flight. Whatever is there when the lock is taken next is removed.
    ///
    /// # Errors
    /// The folder that holds it cannot be made.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        let folder = self.partial();
        files::create_folder(&folder)?;
        Ok(folder.join(format!("tmp-{}", self.temporaries.fetch_add(1, Ordering::Relaxed))))
    }

    /// The same in the cache's folder; the name tells whose it is.
    pub(super) fn cache_temporary(&self) -> Result<PathBuf, StoreError> {
        let folder = self.runs().cache();
        files::create_folder(&folder)?;
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        Ok(folder.join(format!("tmp-{}-{}-{number}", std::process::id(), self.name())))
    }
}

impl Deref for RunLock {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}
