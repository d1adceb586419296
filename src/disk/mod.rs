//! The disk: every change of a run's files, and every read of them, goes through these functions.
//!
//! So a test can [`watch`] a folder: record every operation, fail it, or stop before it. There are
//! two other writers. burn writes a trainer's checkpoint, into a folder flushed here before it
//! counts. Queries sort on disk, into files without use after the process. Libraries read models
//! and the tables of queries, after the store has read and hashed the same files. Knows nothing of
//! the meaning of files.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// One change or read of the disk.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// A file or folder is opened for reading.
    Read(&'a Path),
    /// A new, empty file replaces any file there.
    Create(&'a Path),
    /// A file is opened for appending, and created if missing.
    Open(&'a Path),
    /// Bytes are appended to a file.
    Append(&'a Path, &'a [u8]),
    /// A file is cut to a length.
    Cut(&'a Path, u64),
    /// A file's bytes are flushed to disk.
    Sync(&'a Path),
    /// A folder is created.
    CreateFolder(&'a Path),
    /// A folder's names are flushed to disk.
    SyncFolder(&'a Path),
    /// A file or folder is renamed, and replaces any file there.
    Rename(&'a Path, &'a Path),
    /// A file gets a second name.
    Link(&'a Path, &'a Path),
    /// A file is removed.
    RemoveFile(&'a Path),
    /// An empty folder is removed.
    RemoveFolder(&'a Path),
}

impl<'a> Operation<'a> {
    /// The path of the operation; of two paths, the existing one.
    pub fn path(&self) -> &'a Path {
        match self {
            Self::Read(path) | Self::Create(path) | Self::Open(path) | Self::Append(path, _) | Self::Cut(path, _) | Self::Sync(path) => {
                path
            }
            Self::CreateFolder(path) | Self::SyncFolder(path) | Self::RemoveFile(path) | Self::RemoveFolder(path) => path,
            Self::Rename(path, _) | Self::Link(path, _) => path,
        }
    }
}

/// An observer between this process and a folder, for tests.
pub trait Watcher: Send + Sync {
    /// Does the operation by calling `act` once, or returns an error in its place.
    ///
    /// # Errors
    /// The caller receives this error as the system's answer.
    fn operate(&self, operation: Operation, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

    /// The free space in bytes; `None` for the system's own number.
    fn room(&self) -> Option<u64> {
        None
    }
}

static WATCHED: RwLock<Vec<(PathBuf, Arc<dyn Watcher>)>> = RwLock::new(Vec::new());

/// Shows every operation in `folder` to `watcher`, from any thread, until the returned guard is
/// dropped. For tests. Outside of tests an operation costs one uncontended lock.
pub fn watch(folder: &Path, watcher: Arc<dyn Watcher>) -> Watch {
    WATCHED.write().unwrap_or_else(PoisonError::into_inner).push((folder.to_path_buf(), watcher));
    Watch { folder: folder.to_path_buf() }
}

/// A guard: the folder is watched during its lifetime.
pub struct Watch {
    folder: PathBuf,
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.write().unwrap_or_else(PoisonError::into_inner).retain(|(folder, _)| *folder != self.folder);
    }
}

fn watcher(path: &Path) -> Option<Arc<dyn Watcher>> {
    let watched = WATCHED.read().unwrap_or_else(PoisonError::into_inner);
    watched.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, watcher)| watcher.clone())
}

fn operate<T>(operation: Operation, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(watcher) = watcher(operation.path()) else { return act() };
    let mut act = Some(act);
    let mut made = None;
    watcher.operate(operation, &mut || {
        if let Some(act) = act.take() {
            made = Some(act()?);
        }
        Ok(())
    })?;
    made.ok_or_else(|| io::Error::other("expected the watcher to do the operation"))
}

/// A file for appending.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    file: fs::File,
}

impl File {
    /// Creates an empty file; it replaces any file there.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = operate(Operation::Create(path), || fs::File::create(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Opens a file for reading and appending; creates it if missing.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = operate(Operation::Open(path), || fs::File::options().create(true).read(true).append(true).open(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Cuts the file to this length.
    ///
    /// # Errors
    /// The system's.
    pub fn cut(&self, length: u64) -> io::Result<()> {
        operate(Operation::Cut(&self.path, length), || self.file.set_len(length))
    }

    /// Flushes the file's bytes to disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        operate(Operation::Sync(&self.path), || self.file.sync_all())
    }

    /// The system's file, for operations without a change.
    pub fn as_system(&self) -> &fs::File {
        &self.file
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        operate(Operation::Append(&self.path, bytes), || self.file.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a file for reading.
///
/// # Errors
/// The system's.
pub fn open(path: &Path) -> io::Result<fs::File> {
    operate(Operation::Read(path), || fs::File::open(path))
}

/// The bytes of a file.
///
/// # Errors
/// The system's.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    operate(Operation::Read(path), || fs::read(path))
}

/// The paths in a folder, in no order.
///
/// # Errors
/// The system's.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    operate(Operation::Read(folder), || fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect())
}

/// Writes a file with these bytes; it replaces any file there. It is not flushed.
///
/// # Errors
/// The system's.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(bytes.as_ref())
}

/// Flushes a file's bytes to disk.
///
/// # Errors
/// The system's.
pub fn sync(path: &Path) -> io::Result<()> {
    // Windows flushes only files opened for writing.
    operate(Operation::Sync(path), || fs::File::options().read(true).append(cfg!(windows)).open(path)?.sync_all())
}

/// Flushes a folder's names to disk, where the system supports it.
///
/// # Errors
/// The system's.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    operate(Operation::SyncFolder(path), || if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) })
}

/// Creates a folder. An existing one is fine.
///
/// # Errors
/// The system's.
pub fn create_folder(path: &Path) -> io::Result<()> {
    match operate(Operation::CreateFolder(path), || fs::create_dir(path)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

/// Renames a file or folder; it replaces any file there.
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    operate(Operation::Rename(from, to), || fs::rename(from, to))
}

/// Gives a file a second name, or makes a flushed copy where the file system has no hard links.
///
/// # Errors
/// The system's.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    if operate(Operation::Link(from, to), || fs::hard_link(from, to)).is_ok() {
        return Ok(());
    }
    let mut original = fs::File::open(from)?;
    let mut copy = File::create(to)?;
    let mut bytes = vec![0; COPIED_BYTES];
    loop {
        match original.read(&mut bytes)? {
            0 => return copy.sync(),
            read => copy.write_all(bytes.get(..read).unwrap_or_default())?,
        }
    }
}

/// Bytes copied at a time.
const COPIED_BYTES: usize = 1 << 20;

/// Removes a file, or a folder with its contents. A missing path is fine.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    let remove_all = || {
        if !fs::symlink_metadata(path)?.is_dir() {
            return operate(Operation::RemoveFile(path), || fs::remove_file(path));
        }
        let inner: Vec<PathBuf> = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        inner.iter().try_for_each(|path| remove(path))?;
        operate(Operation::RemoveFolder(path), || fs::remove_dir(path))
    };
    match remove_all() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The free bytes for this process on the disk of a folder.
///
/// # Errors
/// The system's.
pub fn room(folder: &Path) -> io::Result<u64> {
    match watcher(folder).and_then(|watcher| watcher.room()) {
        Some(bytes) => Ok(bytes),
        None => fs4::available_space(folder),
    }
}

/// The remedy for a system's error, as the end of a message; empty if there is none.
pub fn way_on(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space there and run the same command again",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "; make it writable and run the same command again",
        // The standard library has no name for these.
        _ if cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24)) => {
            "; allow more open files (ulimit -n) and run the same command again"
        }
        _ if cfg!(unix) && error.raw_os_error() == Some(5) => "; the disk fails: look at the system's log, then run the same command again",
        _ => "",
    }
}
