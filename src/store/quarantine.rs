//! Files that are not what their manifest says: found by length and hash, moved aside, reported, never used.

use std::fmt;
use std::path::{Path, PathBuf};

use super::manifest::{Listed, Manifest};
use super::{Event, EventKind, OutputKey, RunLock, StoreError, files};
use crate::dag::fingerprint::Fingerprint;

/// A file that was not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it was, or should have been.
    pub path: PathBuf,
    /// Where it is now; `None` if it is missing, or was only looked at.
    pub moved_to: Option<PathBuf>,
    /// What the manifest says.
    pub expected: String,
    /// What was there.
    pub found: String,
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.path.display(), self.expected, self.found)?;
        self.moved_to.as_ref().map_or(Ok(()), |path| write!(f, "; moved to {}", path.display()))
    }
}

/// What is wrong with a listed file in `folder`; `None` if it is right.
///
/// # Errors
/// The file is there and cannot be read.
pub(super) fn inspect(folder: &Path, listed: &Listed) -> Result<Option<Quarantined>, StoreError> {
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

/// What is wrong with all files that the manifest in `folder` lists.
pub(super) fn inspect_all(folder: &Path, manifest: &Manifest) -> Result<Vec<Quarantined>, StoreError> {
    let reports: Result<Vec<_>, _> = manifest.listed().map(|listed| inspect(folder, &listed)).collect();
    Ok(reports?.into_iter().flatten().collect())
}

/// What is wrong with an output's folder: with its manifest, with what that lists, or with there being files and no manifest.
pub(super) fn inspect_output(folder: &Path) -> Result<Vec<Quarantined>, StoreError> {
    match Manifest::read(folder) {
        Ok(Some(manifest)) => inspect_all(folder, &manifest),
        Ok(None) if has_files(folder)? => Ok(vec![unlisted(folder, "no such file")]),
        Ok(None) => Ok(Vec::new()),
        Err(StoreError::Manifest { problem, .. }) => Ok(vec![unlisted(folder, &problem)]),
        Err(error) => Err(error),
    }
}

/// Whether a folder has files as an output has them: not beside the folders of its iterations, and none of a desktop's dot files.
fn has_files(folder: &Path) -> Result<bool, StoreError> {
    let paths = files::list(folder)?;
    let iterated = paths.iter().any(|path| OutputKey::iteration_of(&files::file_name(path)).is_some());
    Ok(!iterated && paths.iter().any(|path| path.is_file() && !files::file_name(path).starts_with('.')))
}

impl RunLock {
    /// Compares every file of the output with its manifest, once a process. What differs is moved to `quarantine/`, journalled and
    /// forgotten by the manifest, so that [`super::Run::state`] says what is to be made anew. A bad copy in the cache goes too.
    ///
    /// # Errors
    /// Files that cannot be read or moved.
    pub fn verify(&self, place: &OutputKey) -> Result<Vec<Quarantined>, StoreError> {
        place.check()?;
        let folder = self.path(place);
        let mut reports = Vec::new();
        let mut manifest = match Manifest::read(&folder) {
            Ok(Some(manifest)) => manifest,
            Ok(None) | Err(StoreError::Manifest { .. }) => {
                reports.extend(inspect_output(&folder)?);
                if !reports.is_empty() {
                    let moved_to = self.move_aside(&folder, &place.word())?;
                    reports.iter_mut().for_each(|report| report.moved_to.clone_from(&moved_to));
                    self.report(place, &reports)?;
                }
                return Ok(reports);
            }
            Err(error) => return Err(error),
        };
        if self.is_verified(&folder, &manifest) {
            return Ok(reports);
        }
        for mut report in inspect_all(&folder, &manifest)? {
            let file = manifest.listed().find(|listed| folder.join(listed.file) == report.path).map(|listed| listed.file.to_string());
            let Some(file) = file else { continue };
            if report.path.exists() {
                report.moved_to = self.move_aside(&report.path, &format!("{}-{}", place.word(), file.replace('/', "-")))?;
            }
            manifest.forget(&file);
            reports.push(report);
        }
        if !reports.is_empty() {
            manifest.write(&folder, &self.temporary()?)?;
            self.report(place, &reports)?;
            // Hard links: the cache most likely has the same bad bytes.
            reports.extend(self.verify_cached(place, &manifest.fingerprint)?);
        }
        self.remember(&folder, &manifest);
        Ok(reports)
    }

    /// Compares a finished output in the cache with its manifest; if it differs, the whole entry is moved to this run's `quarantine/`.
    pub(super) fn verify_cached(&self, place: &OutputKey, fingerprint: &Fingerprint) -> Result<Vec<Quarantined>, StoreError> {
        let entry = self.cache_entry(fingerprint);
        if !entry.is_dir() {
            return Ok(Vec::new());
        }
        let mut reports = match Manifest::read(&entry) {
            Ok(None) => vec![unlisted(&entry, "no such file")],
            _ => inspect_output(&entry)?,
        };
        if !reports.is_empty() {
            let moved_to = self.move_aside(&entry, &format!("cache-{}", fingerprint.short()))?;
            reports.iter_mut().for_each(|report| report.moved_to.clone_from(&moved_to));
            self.report(place, &reports)?;
        }
        Ok(reports)
    }

    /// Moves a file or folder to `quarantine/<word>-<n>` with the first free n; `None` if another process was faster.
    pub(super) fn move_aside(&self, path: &Path, word: &str) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.folder().join("quarantine");
        files::create_folder(&folder)?;
        let mut number = 1;
        let mut target = folder.join(format!("{word}-{number}"));
        while target.exists() {
            number += 1;
            target = folder.join(format!("{word}-{number}"));
        }
        match files::rename(path, &target) {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.map(|()| Some(target)),
        }
    }

    /// One journal line a report.
    pub(super) fn report(&self, place: &OutputKey, reports: &[Quarantined]) -> Result<(), StoreError> {
        reports.iter().try_for_each(|report| {
            let mut event = Event::new(EventKind::Quarantined, &place.name, place.iteration);
            event.message = Some(report.to_string());
            self.record(event)
        })
    }
}

fn unlisted(entry: &Path, found: &str) -> Quarantined {
    Quarantined { path: entry.join(super::manifest::FILE), moved_to: None, expected: "a manifest".to_string(), found: found.to_string() }
}
