//! The folders of a model for another process, and the hash of their files.
//!
//! Knows files, not what a model computes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OperatorError;
use crate::model::{self, Checkpoint};
use crate::store;

/// The folders of a model: its own, or those of an adapter and its base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFolders {
    /// The folder of the weights; of an adapter, its base's.
    pub folder: PathBuf,
    /// The folder of the adapter.
    pub adapter: Option<PathBuf>,
}

impl ModelFolders {
    /// The folders of the model in `folder`.
    ///
    /// # Errors
    /// An adapter with a missing base.
    pub fn new(folder: &Path) -> Result<Self, OperatorError> {
        let own = folder.to_path_buf();
        Ok(match model::base_of(folder)? {
            Some(base) => Self { folder: base, adapter: Some(own) },
            None => Self { folder: own, adapter: None },
        })
    }

    /// The same folders with absolute paths.
    ///
    /// # Errors
    /// The current folder is unknown.
    pub fn absolute(&self) -> Result<Self, OperatorError> {
        let absolute =
            |folder: &PathBuf| std::path::absolute(folder).map_err(|error| OperatorError::Failed(format!("{}: {error}", folder.display())));
        Ok(Self { folder: absolute(&self.folder)?, adapter: self.adapter.as_ref().map(absolute).transpose()? })
    }

    /// A hash of all files of the model.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn hash(&self) -> Result<String, OperatorError> {
        let base = model::base_of(&self.folder)?;
        let folders = [Some(&self.folder), base.as_ref(), self.adapter.as_ref()];
        let hashes = folders.map(|folder| folder.map(|folder| store::fingerprint_of(folder)).transpose());
        let mut hasher = blake3::Hasher::new();
        for hash in hashes {
            hasher.update(hash?.map_or("none".to_string(), |hash| hash.to_string()).as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The model, opened but not loaded.
    ///
    /// # Errors
    /// A file that is missing or wrong.
    pub fn open(&self) -> Result<Checkpoint, OperatorError> {
        let checkpoint = Checkpoint::open(&self.folder)?;
        Ok(match &self.adapter {
            Some(adapter) => checkpoint.with_adapter(adapter)?,
            None => checkpoint,
        })
    }
}
