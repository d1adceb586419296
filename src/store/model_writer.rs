//! Writing a model's folder: all of it or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::{OutputKey, OutputKind, RunLock, StoreError, checkpoint, files};
use crate::dag::fingerprint::Recipe;

/// A model in the making. Dropping it leaves nothing but its checkpoints.
#[derive(Debug)]
pub struct ModelWriter<'a> {
    lock: &'a RunLock,
    key: OutputKey,
    manifest: Manifest,
    dir: PathBuf,
}

impl RunLock {
    /// Begins the model of `recipe` at `place`; what is there stays until [`ModelWriter::finish`].
    ///
    /// # Errors
    /// The folder cannot be made, or the place is a table's.
    pub fn write_model(&self, key: &OutputKey, recipe: &Recipe) -> Result<ModelWriter<'_>, StoreError> {
        key.check()?;
        if key.kind != OutputKind::Model {
            return Err(StoreError::Name { what: "model", name: key.to_string() });
        }
        let dir = self.temporary()?;
        files::create_folder(&dir)?;
        Ok(ModelWriter { lock: self, key: key.clone(), manifest: Manifest::new(key, recipe), dir })
    }
}

impl ModelWriter<'_> {
    /// The empty folder to write the model's files into.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts the folder in place at once, shares it through the cache and removes the recipe's checkpoints. `counts` go into the manifest.
    ///
    /// # Errors
    /// The folder has no files, or files cannot be read, flushed or moved.
    pub fn finish(mut self, counts: BTreeMap<String, i64>) -> Result<Manifest, StoreError> {
        self.manifest.files = checkpoint::sync_and_hash(&self.dir)?;
        if self.manifest.files.is_empty() {
            return Err(StoreError::Incomplete { key: self.key, done: 0, of: 1 });
        }
        self.manifest.counts = counts;
        self.manifest.complete = true;
        self.manifest.write(&self.dir, &self.lock.temporary()?)?;
        self.lock.publish(&self.key, &self.dir, &self.manifest)?;
        self.lock.put_in_place(&self.dir, &self.key)?;
        self.lock.remember(&self.lock.path(&self.key), &self.manifest);
        checkpoint::remove(self.lock, &self.manifest.fingerprint)?;
        Ok(self.manifest)
    }
}
