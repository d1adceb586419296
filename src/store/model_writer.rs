//! Writes a model's folder atomically.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Site};
use super::model_files::sync_and_hash;
use super::name::check_key;
use super::{OutputKey, OutputKind, RunLock, StoreError, files};
use crate::dag::fingerprint::Recipe;

/// An unfinished model. Dropped, it leaves only its checkpoints.
#[derive(Debug)]
pub struct ModelWriter<'a> {
    lock: &'a RunLock,
    key: OutputKey,
    manifest: Manifest,
    dir: PathBuf,
}

impl RunLock {
    /// Begins the model of `recipe` with this key. An older output stays until
    /// [`ModelWriter::finish`].
    ///
    /// # Errors
    /// The folder cannot be created, or the key is a table's.
    pub fn write_model(&self, key: &OutputKey, recipe: &Recipe) -> Result<ModelWriter<'_>, StoreError> {
        check_key(key)?;
        if key.kind != OutputKind::Model {
            return Err(StoreError::Name { what: "model", name: key.to_string() });
        }
        let dir = self.temporary()?;
        files::create_folder(&dir)?;
        Ok(ModelWriter { lock: self, key: key.clone(), manifest: Manifest::new(key, recipe), dir })
    }
}

impl ModelWriter<'_> {
    /// The empty folder for the model's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves the folder to its final path, shares it through the cache and removes the recipe's
    /// checkpoints. `counts` go into the manifest.
    ///
    /// # Errors
    /// The folder has no files, or files cannot be read, flushed or moved.
    pub fn finish(mut self, counts: BTreeMap<String, i64>) -> Result<Manifest, StoreError> {
        self.manifest.files = sync_and_hash(&self.dir)?;
        if self.manifest.files.is_empty() {
            return Err(StoreError::Incomplete { key: self.key, done: 0, of: 1 });
        }
        self.manifest.counts = counts;
        self.manifest.complete = true;
        self.manifest.write(&Site::whole(&self.dir), &self.lock.temporary()?)?;
        self.lock.cache().publish(&self.key, &self.dir, &self.manifest)?;
        self.lock.cache().put_in_place(&self.dir, &self.key)?;
        self.lock.remember(&self.lock.path(&self.key), &self.manifest);
        self.lock.checkpoints().remove(&self.manifest.fingerprint)?;
        Ok(self.manifest)
    }
}
