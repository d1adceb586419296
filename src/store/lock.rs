//! The right to write a run: one process at a time, given back by its death.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::checkpoint::Outlived;
use super::run::{PIPELINE, SOURCES};
use super::{Event, EventKind, Journal, Quarantined, Run, Runs, StoreError, checkpoint, checksum, files};
use crate::disk;

/// The lock's name in the run's folder, and in the cache's.
pub(super) const FILE: &str = "lock";

/// A run that this process may write. Reads like the [`Run`] it is.
#[derive(Debug)]
pub struct RunLock {
    run: Run,
    /// Held for as long as it is open.
    _file: disk::File,
    /// The cache as it is used by runs, any number at once; none where it is being cleaned by the process that holds this.
    _cache: Option<disk::File>,
    /// One line at a time: nodes run side by side.
    journal: Mutex<Journal>,
    temporaries: AtomicU64,
    /// The journal as it was found, if it was not what had been written.
    damaged_journal: Option<Quarantined>,
}

impl Run {
    /// Takes the lock, making the run's folder if need be, and clears away what a killed process had in flight. While the cache is being
    /// cleaned it waits.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the process that has it.
    pub fn lock(&self) -> Result<RunLock, StoreError> {
        let (path, cache) = self.runs().cache_lock()?;
        cache.as_system().lock_shared().map_err(StoreError::io("lock", path))?;
        let mut lock = self.lock_without_cache(PATIENCE)?;
        lock._cache = Some(cache);
        lock.clear_away()?;
        lock.begin_journal()?;
        Ok(lock)
    }

    /// The lock of the run alone, with whatever a killed process left; tried for so long.
    pub(super) fn lock_without_cache(&self, patience: Duration) -> Result<RunLock, StoreError> {
        files::create_folder(self.folder())?;
        let path = self.folder().join(FILE);
        let failed = |error| StoreError::io("lock", path.clone())(error);
        let mut file = disk::File::open(&path).map_err(failed)?;
        match try_lock(file.as_system(), patience) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Where a locked file cannot be read, the holder stays unnamed.
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

    /// Whether a path of the cache's folder is of something that this run had in flight there.
    fn is_cache_temporary(&self, path: &Path) -> bool {
        let name = files::file_name(path);
        let number = name.strip_prefix("tmp-").and_then(|name| name.strip_prefix(self.name())).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
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

/// How long a run that begins waits for its lock: a reader that asks whether it is held, and who tidies up, hold it for a moment themselves.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// The file by which runs share the cache, and by which it is cleaned while none of them is at work.
    pub(super) fn cache_lock(&self) -> Result<(PathBuf, disk::File), StoreError> {
        files::create_folder(&self.cache())?;
        let path = self.cache().join(FILE);
        let file = disk::File::open(&path).map_err(StoreError::io("lock", &path))?;
        Ok((path, file))
    }
}

impl RunLock {
    /// Removes what a killed process had in flight, and checkpoints that it had no time to remove.
    fn clear_away(&self) -> Result<(), StoreError> {
        let (checkpoints, mut in_flight): (Vec<_>, Vec<_>) =
            files::list(&self.partial())?.into_iter().partition(|path| checkpoint::is_checkpoint(path));
        in_flight.extend(files::list(&self.runs().cache())?.into_iter().filter(|path| self.is_cache_temporary(path)));
        in_flight.iter().try_for_each(|path| files::remove(path))?;
        // An unreadable manifest is dealt with when its place is verified.
        let finished = |path: &&PathBuf| matches!(checkpoint::outlived(self, path), Ok(Some(Outlived::Finished)));
        checkpoints.iter().filter(finished).try_for_each(|path| self.discard(path))
    }

    /// Removes a file or folder of the run that counts as long as it is there: at once, as one that is half removed would look damaged.
    pub(super) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let trash = self.temporary()?;
        match files::rename(path, &trash) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result.and_then(|()| files::remove(&trash)),
        }
    }

    /// Has the journal end with a whole line and have whole lines only: what a kill cut in two is cut off; a journal with other lines is
    /// moved aside, and its whole lines stay.
    fn begin_journal(&mut self) -> Result<(), StoreError> {
        let journal = self.journal();
        let Some((text, found)) = journal.repair()? else { return Ok(()) };
        let moved_to = self.move_aside(journal.path(), "journal.jsonl")?;
        files::replace(journal.path(), text.as_bytes(), &self.temporary()?)?;
        let report = Quarantined { path: journal.path().to_path_buf(), moved_to, expected: "whole lines".to_string(), found };
        let mut event = Event::new(EventKind::Quarantined, "journal", None);
        event.message = Some(report.to_string());
        self.record(event)?;
        self.damaged_journal = Some(report);
        Ok(())
    }

    /// The journal's damage, which was found and moved aside when the lock was taken.
    pub fn damaged_journal(&self) -> Option<&Quarantined> {
        self.damaged_journal.as_ref()
    }

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
        files::replace(&self.folder().join(PIPELINE), checksum::YAML.seal(text).as_bytes(), &self.temporary()?)
    }

    /// Replaces `sources.json`: what was fetched for the run, so that it goes on with the same.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_sources(&self, text: &str) -> Result<(), StoreError> {
        files::replace(&self.folder().join(SOURCES), checksum::JSON.seal(text).as_bytes(), &self.temporary()?)
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

    /// The same in the cache's folder; the name tells whose it is, and whoever has that run's lock may remove it.
    pub(super) fn cache_temporary(&self) -> Result<PathBuf, StoreError> {
        let folder = self.runs().cache();
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
