//! Files that survive a kill: write elsewhere, fsync, rename, fsync the folder.
//!
//! Whatever changes the disk goes through [`crate::disk`]. Knows nothing of what the files mean.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ModelFile, StoreError};
use crate::dag::fingerprint::Fingerprint;
use crate::disk;

/// A new file with these bytes, on disk when this returns.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = disk::File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync()
    });
    written.map_err(StoreError::io("write", path))
}

/// A new file that is written piece by piece and hashed on the way. Clones are the same file: one for whoever writes, one to flush it.
#[derive(Clone)]
pub(super) struct Growing {
    path: PathBuf,
    inner: Arc<Mutex<(disk::File, blake3::Hasher)>>,
}

impl Growing {
    /// An empty file.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let file = disk::File::create(path).map_err(StoreError::io("write", path))?;
        Ok(Self { path: path.to_path_buf(), inner: Arc::new(Mutex::new((file, blake3::Hasher::new()))) })
    }

    /// Has the file on disk when this returns: its length in bytes and its blake3 hash.
    pub(super) fn sync(self) -> Result<(u64, blake3::Hash), StoreError> {
        let (file, hasher) = &*self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync().map_err(StoreError::io("write", &self.path))?;
        Ok((hasher.count(), hasher.finalize()))
    }
}

impl Write for Growing {
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

/// Has what was written to `path` on disk when this returns.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    disk::sync(path).map_err(StoreError::io("flush", path))
}

/// Has a folder's names on disk when this returns, where the system can do that.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    disk::sync_folder(path).map_err(StoreError::io("flush", path))
}

/// Has all names under a folder on disk when this returns.
pub(super) fn sync_folders(path: &Path) -> Result<(), StoreError> {
    list(path)?.iter().filter(|inner| inner.is_dir()).try_for_each(|inner| sync_folders(inner))?;
    sync_folder(path)
}

/// The folder and those above it, durably.
pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    create_folder(parent)?;
    disk::create_folder(path).map_err(StoreError::io("create", path))?;
    sync_folder(parent)
}

/// Moves a file or folder, durably; both ends must be on the same file system.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::rename(from, to).map_err(StoreError::io("rename", from))?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Replaces `path` by these bytes at once: a reader sees the old or the new ones. `temporary` must be on the same file system.
pub(super) fn replace(path: &Path, bytes: &[u8], temporary: &Path) -> Result<(), StoreError> {
    write(temporary, bytes)?;
    rename(temporary, path)
}

/// A second name for the file, or a copy where the file system has no hard links.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::link(from, to).map_err(StoreError::io("link", from))
}

/// Removes a file, or a folder with all in it; fine if there is none.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    disk::remove(path).map_err(StoreError::io("remove", path))
}

/// Bytes that are read and hashed at a time: enough for all cores. A map of the whole file would count as this process's memory.
const HASHED_BYTES: usize = 8 << 20;

/// The length in bytes and the blake3 hash of a file.
pub(super) fn hash(path: &Path) -> Result<(u64, blake3::Hash), StoreError> {
    let failed = StoreError::io("read", path);
    let hash = || {
        let (mut file, mut hasher) = (disk::open(path)?, blake3::Hasher::new());
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

/// The bytes of a file, or `None` if there is no such file.
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

/// The bytes of a file, or of all files under a folder, dot files too.
pub(super) fn size(path: &Path) -> Result<u64, StoreError> {
    if path.is_dir() {
        list(path)?.iter().map(|inner| size(inner)).sum()
    } else {
        fs::symlink_metadata(path).map(|metadata| metadata.len()).map_err(StoreError::io("read", path))
    }
}

/// The fingerprint of what is in a file, or in a folder: names and contents of all files but dot files. Where it lies does not matter.
///
/// # Errors
/// Something cannot be read, or a folder has no files.
pub fn fingerprint_of(path: &Path) -> Result<Fingerprint, StoreError> {
    if !path.is_dir() {
        return hash(path).map(|(_, hash)| hash.into());
    }
    let names = walk(path)?;
    if names.is_empty() {
        return Err(StoreError::Input {
            path: path.to_path_buf(),
            line: None,
            problem: "expected files, found an empty folder".to_string(),
        });
    }
    Ok(fingerprint_of_files(&hash_files(path, &names)?))
}

/// The length and the blake3 of each of these files of a folder.
///
/// # Errors
/// A file cannot be read.
pub fn hash_files(folder: &Path, names: &[String]) -> Result<Vec<ModelFile>, StoreError> {
    let hashed = |file: &String| {
        let (bytes, hash) = hash(&folder.join(file))?;
        Ok(ModelFile { file: file.clone(), bytes, blake3: hash.to_hex().to_string() })
    };
    names.iter().map(hashed).collect()
}

/// The fingerprint of a folder with just these files, which are sorted by name.
pub fn fingerprint_of_files(files: &[ModelFile]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for ModelFile { file, blake3, .. } in files {
        // File names have no line ends on any system we name files on; where they do, the length keeps names apart.
        hasher.update(format!("{} {file} {blake3}\n", file.len()).as_bytes());
    }
    hasher.finalize().into()
}
