//! Reading tables and models, after their bytes were compared with the manifest.

use std::path::PathBuf;

use arrow::array::RecordBatch;

use super::manifest::Manifest;
use super::{OutputKey, Run, StoreError, parquet, quarantine};
use crate::tables::TableKind;

impl Run {
    /// The parts of a finished table as batches, in order, verified (once a process) and checked against `table`'s schema and rules.
    ///
    /// A damaged file is an error and stays where it is; [`super::RunLock::verify`] sets it aside.
    ///
    /// # Errors
    /// The table is missing, unfinished, damaged, or not a `table`.
    pub fn read_table(&self, key: &OutputKey, table: Option<TableKind>) -> Result<Vec<RecordBatch>, StoreError> {
        let (folder, manifest) = self.finished(key)?;
        let mut batches = Vec::with_capacity(manifest.parts.len());
        for part in &manifest.parts {
            let path = folder.join(&part.file);
            let batch = parquet::decode(&path)?;
            batches.push(match table {
                Some(table) => checked(table, batch).map_err(|source| StoreError::Table { path, source })?,
                None => batch,
            });
        }
        if let Some(table) = table {
            table.check_keys(&batches).map_err(|source| StoreError::Table { path: folder, source })?;
        }
        Ok(batches)
    }

    /// The folder of a finished model, verified (once a process).
    ///
    /// # Errors
    /// The model is missing or damaged.
    pub fn model_dir(&self, key: &OutputKey) -> Result<PathBuf, StoreError> {
        self.finished(key).map(|(folder, _)| folder)
    }

    /// The folder and manifest of an output that is complete and undamaged.
    fn finished(&self, key: &OutputKey) -> Result<(PathBuf, Manifest), StoreError> {
        let folder = self.path(key);
        let manifest = self.manifest(key)?.ok_or_else(|| StoreError::Missing { key: key.clone(), path: folder.clone() })?;
        if !manifest.complete {
            let (done, of) = (manifest.parts.len() as u64, manifest.part_count);
            return Err(StoreError::Incomplete { key: key.clone(), done, of });
        }
        self.check_bytes(key, &manifest)?;
        Ok((folder, manifest))
    }

    /// Compares the files of an output with its manifest, once a process, and changes nothing.
    pub(super) fn check_bytes(&self, key: &OutputKey, manifest: &Manifest) -> Result<(), StoreError> {
        let folder = self.path(key);
        if self.is_verified(&folder, manifest) {
            return Ok(());
        }
        let files = quarantine::inspect_all(&folder, manifest)?;
        if !files.is_empty() {
            return Err(StoreError::Damaged { files });
        }
        self.remember(&folder, manifest);
        Ok(())
    }
}

fn checked(table: TableKind, batch: RecordBatch) -> Result<RecordBatch, crate::tables::TableError> {
    table.check(&batch)?;
    table.conform(&batch)
}
