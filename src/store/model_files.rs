//! Lists of files with lengths and hashes, and the fingerprints of files and folders.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{StoreError, files};
use crate::dag::fingerprint::Fingerprint;

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Its name within the folder, with `/`.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its blake3 hash, hexadecimal.
    pub blake3: String,
}

impl ModelFile {
    /// The fingerprint of the file's content.
    ///
    /// # Errors
    /// The hash is none.
    pub fn fingerprint(&self) -> Result<Fingerprint, StoreError> {
        let failed = |problem| StoreError::Input { path: self.file.clone().into(), line: None, problem };
        self.blake3.clone().try_into().map_err(failed)
    }
}

/// The length and the blake3 hash of each of these files in a folder.
///
/// # Errors
/// A file cannot be read.
pub fn hash_files(folder: &Path, names: &[String]) -> Result<Vec<ModelFile>, StoreError> {
    let hashed = |file: &String| {
        let (bytes, hash) = files::hash(&folder.join(file))?;
        Ok(ModelFile { file: file.clone(), bytes, blake3: hash.to_hex().to_string() })
    };
    names.iter().map(hashed).collect()
}

/// Flushes every file under `dir`, and the names of its folders, to disk. Returns the list of
/// files.
///
/// # Errors
/// A file cannot be read or flushed.
pub(super) fn sync_and_hash(dir: &Path) -> Result<Vec<ModelFile>, StoreError> {
    let listed = files::walk(dir)?.into_iter().map(|file| {
        let path = dir.join(&file);
        files::sync(&path)?;
        let (bytes, hash) = files::hash(&path)?;
        Ok(ModelFile { file, bytes, blake3: hash.to_hex().to_string() })
    });
    let listed = listed.collect::<Result<Vec<_>, StoreError>>()?;
    files::sync_folders(dir)?;
    Ok(listed)
}

/// The fingerprint of a file, or of a folder: names and contents of all files except dot files. The
/// path has no influence.
///
/// # Errors
/// A file cannot be read, or a folder has no files.
pub fn fingerprint_of(path: &Path) -> Result<Fingerprint, StoreError> {
    if !path.is_dir() {
        return files::hash(path).map(|(_, hash)| hash.into());
    }
    let names = files::walk(path)?;
    if names.is_empty() {
        return Err(StoreError::Input {
            path: path.to_path_buf(),
            line: None,
            problem: "expected files, found an empty folder".to_string(),
        });
    }
    Ok(fingerprint_of_files(&hash_files(path, &names)?))
}

/// The fingerprint of a folder with exactly these files, sorted by name.
pub fn fingerprint_of_files(files: &[ModelFile]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for ModelFile { file, blake3, .. } in files {
        // File names have no line ends on common systems. Elsewhere the length separates the names.
        hasher.update(format!("{} {file} {blake3}\n", file.len()).as_bytes());
    }
    hasher.finalize().into()
}
