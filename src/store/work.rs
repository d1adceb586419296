//! The work of unfinished commands: folders for the files of programs, kept from one process to the
//! next and removed with the finished output.
//!
//! Knows nothing of their contents.

use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::name::check_key;
use super::{OutputKey, OutputKind, Run, RunLock, StoreError, files};
use crate::dag::fingerprint::Fingerprint;

const PREFIX: &str = "work-";

/// The folder of the logs of programs, below the run's folder.
const LOGS: &str = "logs";

/// Whether a path in `.partial/` is the work of a command.
pub(super) fn is_work(path: &Path) -> bool {
    files::file_name(path).starts_with(PREFIX)
}

/// Why some work is obsolete: the output is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obsolete {
    /// With the recipe of the work.
    Finished,
    /// With another recipe.
    Changed,
}

/// Whether and how the work in a folder is obsolete. `None` if its output is unfinished.
pub(super) fn obsolete(run: &Run, dir: &Path) -> Result<Option<Obsolete>, StoreError> {
    let name = files::file_name(dir);
    let Some((word, fingerprint)) = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('-')) else { return Ok(None) };
    let finished: Vec<Manifest> = run
        .manifests()?
        .into_iter()
        .filter(|(key, manifest)| key.word() == word && manifest.complete)
        .map(|(_, manifest)| manifest)
        .collect();
    if finished.iter().any(|manifest| manifest.fingerprint.as_str() == fingerprint) {
        return Ok(Some(Obsolete::Finished));
    }
    Ok((!finished.is_empty()).then_some(Obsolete::Changed))
}

impl RunLock {
    /// The folder for the work on an output, created if missing.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn work(&self, key: &OutputKey, fingerprint: &Fingerprint) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        let folder = self.partial().join(format!("{PREFIX}{}-{fingerprint}", key.word()));
        files::create_folder(&folder)?;
        Ok(folder)
    }

    /// Removes the work on an output.
    ///
    /// # Errors
    /// Files cannot be removed.
    pub fn remove_work(&self, key: &OutputKey, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        self.discard(&self.work(key, fingerprint)?)
    }

    /// The file for what a program says on `stream` during the work on an output. The folder is
    /// there, the file need not be.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn log(&self, key: &OutputKey, stream: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        let folder = self.folder().join(LOGS);
        files::create_folder(&folder)?;
        Ok(folder.join(format!("{}.{stream}.log", key.word())))
    }

    /// Gives the Parquet files of a finished, verified table names in the new folder `to`, without
    /// other files.
    ///
    /// # Errors
    /// The table is missing, unfinished or damaged, or files cannot be linked.
    pub fn link_table(&self, key: &OutputKey, to: &Path) -> Result<(), StoreError> {
        debug_assert!(key.kind == OutputKind::Table, "{key} is no table");
        let (from, manifest) = self.finished(key)?;
        files::create_folder(to)?;
        manifest.parts.iter().try_for_each(|part| files::link(&from.join(&part.file), &to.join(&part.file)))
    }
}
