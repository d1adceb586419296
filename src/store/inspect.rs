//! Compares files with their manifests. Changes nothing.

use std::path::Path;

use super::manifest::{ListedFile, Manifest, Site};
use super::{OutputKey, Quarantined, StoreError, files};

/// Compares one listed file in `folder` by length and hash. `None` if it is intact.
///
/// # Errors
/// The file exists and cannot be read.
pub(super) fn inspect_file(folder: &Path, listed: &ListedFile) -> Result<Option<Quarantined>, StoreError> {
    let path = folder.join(listed.file);
    let describe = |bytes: u64, hash: &str| format!("{bytes} bytes with blake3 {}", hash.get(..12).unwrap_or(hash));
    let found = match files::hash(&path) {
        Ok((bytes, hash)) if bytes == listed.bytes && hash.to_hex().as_str() == listed.blake3 => return Ok(None),
        Ok((bytes, hash)) => describe(bytes, hash.to_hex().as_str()),
        Err(error) if error.is_not_found() => "no such file".to_string(),
        Err(error) => return Err(error),
    };
    Ok(Some(Quarantined { path, moved_to: None, expected: describe(listed.bytes, listed.blake3), found }))
}

/// Compares all files of the manifest in `folder`. Returns the damaged ones.
pub(super) fn inspect_files(folder: &Path, manifest: &Manifest) -> Result<Vec<Quarantined>, StoreError> {
    let reports: Result<Vec<_>, _> = manifest.listed().map(|listed| inspect_file(folder, &listed)).collect();
    Ok(reports?.into_iter().flatten().collect())
}

/// Inspects an output's folder: its manifest, the listed files, and the case of files without a
/// manifest.
pub(super) fn inspect_output(site: &Site) -> Result<Vec<Quarantined>, StoreError> {
    match Manifest::read(site) {
        Ok(Some(manifest)) => inspect_files(site.folder(), &manifest),
        Ok(None) if has_files(site.folder())? => Ok(vec![without_manifest(site, "no such file")]),
        Ok(None) => Ok(Vec::new()),
        Err(StoreError::Manifest { problem, .. }) => Ok(vec![without_manifest(site, &problem)]),
        Err(error) => Err(error),
    }
}

/// The report on a folder without a readable manifest.
pub(super) fn without_manifest(site: &Site, found: &str) -> Quarantined {
    Quarantined { path: site.path(), moved_to: None, expected: "a manifest".to_string(), found: found.to_string() }
}

/// Whether a folder has files of an output. Folders with subfolders of iterations have none, and
/// dot files of a desktop do not count.
fn has_files(folder: &Path) -> Result<bool, StoreError> {
    let paths = files::list(folder)?;
    let iterated = paths.iter().any(|path| OutputKey::iteration_of(&files::file_name(path)).is_some());
    Ok(!iterated && paths.iter().any(|path| path.is_file() && !files::file_name(path).starts_with('.')))
}
