//! Moves damaged files to `quarantine/`, and reports them in the journal.

use std::path::{Path, PathBuf};

use super::inspect::{inspect_files, inspect_output, without_manifest};
use super::manifest::{Manifest, Site};
use super::name::check_key;
use super::{Event, EventKind, OutputKey, Quarantined, RunLock, StoreError, files};
use crate::dag::fingerprint::Fingerprint;

/// The folder of a run's damaged files, below the run's folder.
pub(super) const FOLDER: &str = "quarantine";

/// The quarantine of a locked run.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine<'a> {
    run: &'a RunLock,
}

impl RunLock {
    /// The run's quarantine.
    pub fn quarantine(&self) -> Quarantine<'_> {
        Quarantine { run: self }
    }
}

impl Quarantine<'_> {
    /// Compares every file of the output with its manifest, once in a process. A damaged file is
    /// moved to `quarantine/`, recorded in the journal and removed from the manifest, so
    /// `Run::state` reports it as missing. A bad copy in the cache is moved too.
    ///
    /// # Errors
    /// Files cannot be read or moved.
    pub fn verify(&self, key: &OutputKey) -> Result<Vec<Quarantined>, StoreError> {
        check_key(key)?;
        let run = self.run;
        let folder = run.path(key);
        let site = run.site(key);
        site.settle()?;
        let mut reports = Vec::new();
        let mut manifest = match Manifest::read(&site) {
            Ok(Some(manifest)) => manifest,
            Ok(None) | Err(StoreError::Manifest { .. }) => {
                reports.extend(inspect_output(&site)?);
                if !reports.is_empty() {
                    site.take_in()?;
                    let moved_to = self.move_aside(&folder, &key.word())?;
                    reports.iter_mut().for_each(|report| report.moved_to.clone_from(&moved_to));
                    self.report(key, &reports)?;
                }
                return Ok(reports);
            }
            Err(error) => return Err(error),
        };
        if run.is_verified(&folder, &manifest) {
            return Ok(reports);
        }
        for mut report in inspect_files(&folder, &manifest)? {
            let file = manifest.listed().find(|listed| folder.join(listed.file) == report.path).map(|listed| listed.file.to_string());
            let Some(file) = file else {
                let problem = format!("{} is damaged and not in its manifest", report.path.display());
                return Err(StoreError::internal("Quarantine::verify", problem));
            };
            if report.path.exists() {
                report.moved_to = self.move_aside(&report.path, &format!("{}-{}", key.word(), file.replace('/', "-")))?;
            }
            manifest.forget(&file);
            reports.push(report);
        }
        if !reports.is_empty() {
            manifest.write(&site, &run.temporary()?)?;
            self.report(key, &reports)?;
            // Hard links: the cache probably has the same bad bytes.
            reports.extend(self.verify_cached(key, &manifest.fingerprint)?);
        }
        run.remember(&folder, &manifest);
        Ok(reports)
    }

    /// Compares a finished output in the cache with its manifest. A damaged entry is moved as a
    /// whole to this run's `quarantine/`.
    pub(super) fn verify_cached(&self, key: &OutputKey, fingerprint: &Fingerprint) -> Result<Vec<Quarantined>, StoreError> {
        let entry = self.run.cache_entry(fingerprint);
        if !entry.is_dir() {
            return Ok(Vec::new());
        }
        let site = Site::whole(&entry);
        let mut reports = match Manifest::read(&site) {
            Ok(None) => vec![without_manifest(&site, "no such file")],
            _ => inspect_output(&site)?,
        };
        if !reports.is_empty() {
            let moved_to = self.move_aside(&entry, &format!("cache-{}", fingerprint.short()))?;
            reports.iter_mut().for_each(|report| report.moved_to.clone_from(&moved_to));
            self.report(key, &reports)?;
        }
        Ok(reports)
    }

    /// Moves a file or folder to `quarantine/<word>-<n>` with the first free n. `None` if another
    /// process was faster.
    pub(super) fn move_aside(&self, path: &Path, word: &str) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.run.folder().join(FOLDER);
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

    /// Records each report as a line of the journal.
    pub(super) fn report(&self, key: &OutputKey, reports: &[Quarantined]) -> Result<(), StoreError> {
        reports.iter().try_for_each(|report| {
            let mut event = Event::new(EventKind::Quarantined, &key.name, key.iteration);
            event.message = Some(report.to_string());
            self.run.record(event)
        })
    }
}
