//! Begins the writing of a run: takes the lock and cleans up after a killed process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoint::{self, Obsolete};
use super::work;
use super::{Event, EventKind, Quarantined, Run, RunLock, StoreError, files};

/// How long a new run waits for its lock. A reader asking for the lock's state, and a cleaner, hold
/// it for a moment.
const PATIENCE: Duration = Duration::from_secs(1);

impl Run {
    /// Takes the lock. Creates the run's folder if necessary, removes temporary files of a killed
    /// process, and repairs the journal. Waits while the cache is being cleaned.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the process with the lock.
    pub fn lock(&self) -> Result<RunLock, StoreError> {
        let (path, cache) = self.runs().cache_lock()?;
        cache.as_system().lock_shared().map_err(StoreError::io("lock", path))?;
        let mut lock = self.lock_without_cache(PATIENCE)?;
        lock._cache = Some(cache);
        remove_leftovers(&lock)?;
        lock.damaged_journal = repair_journal(&lock)?;
        Ok(lock)
    }
}

/// Removes temporary files of a killed process, its obsolete checkpoints, and the work of finished
/// commands.
fn remove_leftovers(run: &RunLock) -> Result<(), StoreError> {
    run.remove_temporaries()?;
    let (works, checkpoints): (Vec<_>, Vec<_>) = files::list(&run.partial())?.into_iter().partition(|path| work::is_work(path));
    // Verification of the output deals with an unreadable manifest.
    let finished = |path: &&PathBuf| matches!(checkpoint::obsolete(run, path), Ok(Some(Obsolete::Finished)));
    checkpoints.iter().filter(finished).try_for_each(|path| run.discard(path))?;
    let finished = |path: &&PathBuf| matches!(work::obsolete(run, path), Ok(Some(work::Obsolete::Finished)));
    works.iter().filter(finished).try_for_each(|path| run.discard(path))
}

impl RunLock {
    /// Removes the temporary files and folders of the run. Nothing may work with them any more.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub fn remove_temporaries(&self) -> Result<(), StoreError> {
        let mut temporary = files::list(&self.partial())?;
        temporary.retain(|path| !checkpoint::is_checkpoint(path) && !work::is_work(path));
        temporary.extend(files::list(&self.runs().cache_folder())?.into_iter().filter(|path| is_cache_temporary(self, path)));
        temporary.iter().try_for_each(|path| files::remove(path))
    }
}

/// Whether a path in the cache's folder is a temporary file of this run.
fn is_cache_temporary(run: &Run, path: &Path) -> bool {
    let name = files::file_name(path);
    let number = name.strip_prefix("tmp-").and_then(|name| name.strip_prefix(run.name())).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
}

/// Makes the journal a file of whole, valid lines. A last line cut short by a kill is removed. A
/// journal with invalid lines is moved aside, and a new one keeps its valid lines. Returns this
/// damage.
fn repair_journal(run: &RunLock) -> Result<Option<Quarantined>, StoreError> {
    let journal = run.journal();
    let Some((text, found)) = journal.repair()? else { return Ok(None) };
    let moved_to = run.quarantine().move_aside(journal.path(), "journal.jsonl")?;
    files::replace(journal.path(), text.as_bytes(), &run.temporary()?)?;
    let report = Quarantined { path: journal.path().to_path_buf(), moved_to, expected: "whole lines".to_string(), found };
    let mut event = Event::new(EventKind::Quarantined, "journal", None);
    event.message = Some(report.to_string());
    run.record(event)?;
    Ok(Some(report))
}
