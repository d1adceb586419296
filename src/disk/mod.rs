//! The disk: whatever a run writes is made, grown, flushed, named and removed by these functions, and what it wrote is opened by them again.
//!
//! So a test can [`watch`] a folder: record every operation, fail it, or stop in front of it. Two things write beside them: a trainer's
//! checkpoint through burn's own writer, into a folder that is flushed here before it counts, and queries that sort on disk, into files
//! that nothing needs once the process is dead. Models and the tables of queries are read by the libraries that know them, after the store has
//! read and hashed the same files. Knows nothing of what files mean.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// One change of the disk, or a look at it.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// A file or folder opened to be read.
    Read(&'a Path),
    /// A new, empty file in the place of what was there.
    Create(&'a Path),
    /// A file opened at its end, made if there is none.
    Open(&'a Path),
    /// Bytes behind the end of a file.
    Append(&'a Path, &'a [u8]),
    /// A file cut to a length.
    Cut(&'a Path, u64),
    /// A file's bytes, on disk.
    Sync(&'a Path),
    /// A new folder.
    CreateFolder(&'a Path),
    /// A folder's names, on disk.
    SyncFolder(&'a Path),
    /// Another name for a file or folder, in the place of a file that had it.
    Rename(&'a Path, &'a Path),
    /// A second name for a file.
    Link(&'a Path, &'a Path),
    /// A file's name gone.
    RemoveFile(&'a Path),
    /// An empty folder gone.
    RemoveFolder(&'a Path),
}

impl<'a> Operation<'a> {
    /// What it is done to; of two names, the one that was there.
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

/// Something that stands between this process and a folder.
pub trait Watcher: Send + Sync {
    /// Does the operation by calling `act` once, or returns an error in its place.
    ///
    /// # Errors
    /// What the caller is to take for the system's answer.
    fn operate(&self, operation: Operation, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

    /// How many bytes there is room for, if it is not as many as the system says.
    fn room(&self) -> Option<u64> {
        None
    }
}

static WATCHED: RwLock<Vec<(PathBuf, Arc<dyn Watcher>)>> = RwLock::new(Vec::new());

/// Shows every operation in `folder` to `watcher`, whichever thread does it, until what this returns is dropped. For tests; where nothing
/// is watched, an operation costs a lock that nobody holds.
pub fn watch(folder: &Path, watcher: Arc<dyn Watcher>) -> Watch {
    WATCHED.write().unwrap_or_else(PoisonError::into_inner).push((folder.to_path_buf(), watcher));
    Watch { folder: folder.to_path_buf() }
}

/// A folder that is watched for as long as this lives.
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
    let (mut act, mut made) = (Some(act), None);
    watcher.operate(operation, &mut || {
        if let Some(act) = act.take() {
            made = Some(act()?);
        }
        Ok(())
    })?;
    made.ok_or_else(|| io::Error::other("expected the watcher to do the operation"))
}

/// A file that grows at its end.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    file: fs::File,
}

impl File {
    /// A new, empty file in the place of what was there.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = operate(Operation::Create(path), || fs::File::create(path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// A file to be read, and written at its end; made if there is none.
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

    /// Has the file's bytes on disk when this returns.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        operate(Operation::Sync(&self.path), || self.file.sync_all())
    }

    /// The system's file, for what changes nothing.
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

/// A file to be read.
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

/// A file with these bytes, in the place of what was there; not flushed.
///
/// # Errors
/// The system's.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(bytes.as_ref())
}

/// Has what was written to `path` on disk when this returns.
///
/// # Errors
/// The system's.
pub fn sync(path: &Path) -> io::Result<()> {
    // Windows flushes only files opened for writing.
    operate(Operation::Sync(path), || fs::File::options().read(true).append(cfg!(windows)).open(path)?.sync_all())
}

/// Has a folder's names on disk when this returns, where the system can do that.
///
/// # Errors
/// The system's.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    operate(Operation::SyncFolder(path), || if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) })
}

/// A new folder; fine if it is there.
///
/// # Errors
/// The system's.
pub fn create_folder(path: &Path) -> io::Result<()> {
    match operate(Operation::CreateFolder(path), || fs::create_dir(path)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

/// Another name for a file or folder, in the place of a file that had it.
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    operate(Operation::Rename(from, to), || fs::rename(from, to))
}

/// A second name for a file, or a flushed copy where the file system has no hard links.
///
/// # Errors
/// The system's.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    if operate(Operation::Link(from, to), || fs::hard_link(from, to)).is_ok() {
        return Ok(());
    }
    let (mut original, mut copy) = (fs::File::open(from)?, File::create(to)?);
    let mut bytes = vec![0; COPIED_BYTES];
    loop {
        match original.read(&mut bytes)? {
            0 => return copy.sync(),
            read => copy.write_all(bytes.get(..read).unwrap_or_default())?,
        }
    }
}

/// Bytes that are copied at a time.
const COPIED_BYTES: usize = 1 << 20;

/// Removes a file, or a folder with all in it; fine if there is none.
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

/// How many bytes this process can still write on the disk that a folder is on.
///
/// # Errors
/// The system's.
pub fn room(folder: &Path) -> io::Result<u64> {
    match watcher(folder).and_then(|watcher| watcher.room()) {
        Some(bytes) => Ok(bytes),
        None => fs4::available_space(folder),
    }
}

/// What the user can do about the system's answer, to stand behind it; empty where nothing is known.
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
