//! Reads tables and models after verification against their manifests.

use std::path::PathBuf;

use arrow::array::RecordBatch;

use super::inspect::inspect_files;
use super::manifest::Manifest;
use super::{OutputKey, Run, StoreError, parquet};
use crate::tables::TableKind;

impl Run {
    /// The parts of a finished table as batches, in order. They are verified once in a process, and
    /// checked against the schema and rules of `table`.
    ///
    /// A damaged file is an error and stays in place; `Quarantine::verify` moves it aside.
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

    /// The folder of a finished model, verified once in a process.
    ///
    /// # Errors
    /// The model is missing or damaged.
    pub fn model_dir(&self, key: &OutputKey) -> Result<PathBuf, StoreError> {
        self.finished(key).map(|(folder, _)| folder)
    }

    /// The folder and manifest of a complete, intact output.
    pub(super) fn finished(&self, key: &OutputKey) -> Result<(PathBuf, Manifest), StoreError> {
        let folder = self.path(key);
        let manifest = self.manifest(key)?.ok_or_else(|| StoreError::Missing { key: key.clone(), path: folder.clone() })?;
        if !manifest.complete {
            let done = manifest.parts.len() as u64;
            let of = manifest.part_count;
            return Err(StoreError::Incomplete { key: key.clone(), done, of });
        }
        self.check_bytes(key, &manifest)?;
        Ok((folder, manifest))
    }

    /// Compares the files of an output with its manifest, once in a process. Changes nothing.
    pub(crate) fn check_bytes(&self, key: &OutputKey, manifest: &Manifest) -> Result<(), StoreError> {
        let folder = self.path(key);
        if self.is_verified(&folder, manifest) {
            return Ok(());
        }
        let files = inspect_files(&folder, manifest)?;
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
