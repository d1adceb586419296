//! The folder of an executor for answers until they are fetched.
//!
//! It goes with its executor. A killed executor leaves it, and the next one on the machine removes
//! it. Knows nothing of the files in it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The begin of the names of all such folders; the id of the process follows.
const PREFIX: &str = "optune-executor-";
/// The end of the name of the locked file beside a folder.
const LOCK: &str = ".lock";

/// A folder, removed in the end.
#[derive(Debug)]
pub struct ResultsFolder {
    path: PathBuf,
    lock_path: PathBuf,
    /// Locked as long as this process lives.
    _lock: File,
}

impl ResultsFolder {
    /// A new folder of this process in `parent`. Those of killed processes are removed.
    ///
    /// # Errors
    /// The folder cannot be made, or this process has one already.
    pub fn create(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent)?;
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        let lock_path = lock_of(&path);
        // The lock is there before the folder: a folder without one is nobody's.
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other(format!("{}: another executor has it", path.display()))),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        fs::create_dir_all(&path)?;
        Ok(Self { path, lock_path, _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ResultsFolder {
    fn drop(&mut self) {
        // What stays is removed by the next executor.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

fn lock_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_os_string();
    name.push(LOCK);
    PathBuf::from(name)
}

/// Removes the folders whose processes are gone. Those of other users stay.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) || name.ends_with(LOCK) || !entry.file_type()?.is_dir() {
            continue;
        }
        let lock_path = lock_of(&entry.path());
        let is_free = match File::options().write(true).open(&lock_path) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_free {
            let _ = fs::remove_dir_all(entry.path());
            let _ = fs::remove_file(lock_path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_executor_and_abandoned_ones_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}0"));
        let other = parent.path().join("other");
        [&abandoned, &other].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(lock_of(&abandoned), "").unwrap();
        fs::write(abandoned.join("answer"), "bytes").unwrap();
        let of_another = parent.path().join(format!("{PREFIX}1"));
        fs::create_dir(&of_another).unwrap();
        let lock = File::create(lock_of(&of_another)).unwrap();
        lock.lock().unwrap();

        let folder = ResultsFolder::create(parent.path()).unwrap();
        assert!(!abandoned.exists() && !lock_of(&abandoned).exists());
        assert!(other.is_dir() && of_another.is_dir() && folder.path().is_dir());
        let path = folder.path().to_path_buf();
        fs::write(path.join("answer"), "bytes").unwrap();
        drop(folder);
        assert!(!path.exists() && !lock_of(&path).exists());
    }
}
