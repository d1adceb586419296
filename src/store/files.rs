//! Durable file operations: write under a temporary name, fsync, rename, fsync the folder.
//!
//! Every change of the disk goes through `crate::disk`. Knows nothing of the meaning of the files.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;
use crate::disk;

/// Writes a new file and flushes it to disk.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = disk::File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync()
    });
    written.map_err(StoreError::io("write", path))
}

/// A new file, written piece by piece and hashed on the way. Clones share the file: one writes, one
/// flushes.
#[derive(Clone)]
pub(super) struct HashedFile {
    path: PathBuf,
    inner: Arc<Mutex<(disk::File, blake3::Hasher)>>,
}

impl HashedFile {
    /// Creates an empty file.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let file = disk::File::create(path).map_err(StoreError::io("write", path))?;
        Ok(Self { path: path.to_path_buf(), inner: Arc::new(Mutex::new((file, blake3::Hasher::new()))) })
    }

    /// Flushes the file to disk. Returns its length in bytes and its blake3 hash.
    pub(super) fn sync(self) -> Result<(u64, blake3::Hash), StoreError> {
        let (file, hasher) = &*self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync().map_err(StoreError::io("write", &self.path))?;
        Ok((hasher.count(), hasher.finalize()))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (file, hasher) = &mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(bytes)?;
        hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Flushes a file to disk.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    disk::sync(path).map_err(StoreError::io("flush", path))
}

/// Flushes a folder's names to disk, where the system supports it.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    disk::sync_folder(path).map_err(StoreError::io("flush", path))
}

/// Flushes all names under a folder to disk.
pub(super) fn sync_folders(path: &Path) -> Result<(), StoreError> {
    list(path)?.iter().filter(|inner| inner.is_dir()).try_for_each(|inner| sync_folders(inner))?;
    sync_folder(path)
}

/// Creates the folder and its missing parents, durably.
pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    create_folder(parent)?;
    disk::create_folder(path).map_err(StoreError::io("create", path))?;
    sync_folder(parent)
}

/// Moves a file or folder, durably. Both paths must be on the same file system.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::rename(from, to).map_err(StoreError::io("rename", from))?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Replaces `path` atomically: a reader sees the old or the new bytes. `temporary` must be on the
/// same file system.
pub(super) fn replace(path: &Path, bytes: &[u8], temporary: &Path) -> Result<(), StoreError> {
    write(temporary, bytes)?;
    rename(temporary, path)
}

/// Links a file to a second name, or copies it where the file system has no hard links.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::link(from, to).map_err(StoreError::io("link", from))
}

/// Removes a file, or a folder with its contents. A missing path is fine.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    disk::remove(path).map_err(StoreError::io("remove", path))
}

/// Bytes read and hashed at a time: enough work for all cores. A memory map of the whole file would
/// count as memory of this process.
const HASHED_BYTES: usize = 8 << 20;

/// The length in bytes and the blake3 hash of a file.
pub(super) fn hash(path: &Path) -> Result<(u64, blake3::Hash), StoreError> {
    let failed = StoreError::io("read", path);
    let hash = || {
        let mut file = disk::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = vec![0; HASHED_BYTES.min(usize::try_from(file.metadata()?.len()).unwrap_or(HASHED_BYTES).max(1))];
        loop {
            match file.read(&mut bytes) {
                Ok(0) => return Ok((hasher.count(), hasher.finalize())),
                Ok(read) => hasher.update_rayon(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
        }
    };
    hash().map_err(failed)
}

/// The bytes of a file; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match disk::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// The paths in a folder, sorted; none if there is no such folder.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = match disk::list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        paths => paths.map_err(StoreError::io("list", folder))?,
    };
    paths.sort();
    Ok(paths)
}

/// Every file under a folder except dot files, as names with `/`, sorted.
pub(super) fn walk(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for path in list(folder)? {
        let name = file_name(&path);
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            names.extend(walk(&path)?.into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The last name of a path, as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name: &OsStr| name.to_string_lossy().into_owned())
}

/// The size in bytes of a file, or of all files under a folder, including dot files.
pub(super) fn size(path: &Path) -> Result<u64, StoreError> {
    if path.is_dir() {
        list(path)?.iter().map(|inner| size(inner)).sum()
    } else {
        fs::symlink_metadata(path).map(|metadata| metadata.len()).map_err(StoreError::io("read", path))
    }
}
