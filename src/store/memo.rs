//! Rows that outlive runs: what any run may look up again, by the fingerprint of what made them.
//!
//! A table only grows, by parts that are named for their hash: no manifest, so runs may add at once, and a part tells by itself whether it
//! is what was written. Nothing depends on what is there but time. Knows nothing of what the rows mean.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

use super::{OutputKey, Quarantined, RunLock, Runs, StoreError, files, parquet};
use crate::dag::fingerprint::Fingerprint;
use crate::tables::TableKind;

impl RunLock {
    /// The parts of `table` that are kept for `of`, in the order of their names; rows may be there twice when two runs added them at once.
    ///
    /// A part that is not what was written, or of another version of the table, is moved to this run's `quarantine/` and journalled for
    /// the node at `place`.
    ///
    /// # Errors
    /// Files cannot be read or moved.
    pub fn kept(&self, place: &OutputKey, table: TableKind, of: &Fingerprint) -> Result<(Vec<RecordBatch>, Vec<Quarantined>), StoreError> {
        let (mut batches, mut reports) = (Vec::new(), Vec::new());
        for path in self.runs().kept_parts(table, of)? {
            match read(&path, table) {
                Ok(batch) => batches.extend(batch),
                Err(StoreError::Damaged { files }) => {
                    for mut report in files {
                        report.moved_to = self.move_aside(&path, &format!("{table}-{}", of.short()))?;
                        reports.push(report);
                    }
                }
                // Another run has moved it aside.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.report(place, &reports)?;
        Ok((batches, reports))
    }

    /// Adds a part to the `table` kept for `of`: when this returns it survives a kill, before that it is not there.
    ///
    /// # Errors
    /// The rows break the table's rules, or the file cannot be written.
    pub fn keep(&self, table: TableKind, of: &Fingerprint, batch: &RecordBatch) -> Result<(), StoreError> {
        let folder = self.runs().kept_folder(table).join(of.as_str());
        table.check(batch).map_err(|source| StoreError::Table { path: folder.clone(), source })?;
        let bytes = parquet::encode(batch, &[("fingerprint", of.to_string())])
            .map_err(|source| StoreError::Parquet { path: folder.clone(), source })?;
        files::create_folder(&folder)?;
        files::replace(&folder.join(format!("{}.parquet", blake3::hash(&bytes))), &bytes, &self.cache_temporary()?)
    }
}

impl Runs {
    /// The folder of all that is kept of a table: one folder a fingerprint.
    pub(super) fn kept_folder(&self, table: TableKind) -> PathBuf {
        self.cache().join(table.name())
    }

    /// The files that are kept of a table for `of`.
    pub(super) fn kept_parts(&self, table: TableKind, of: &Fingerprint) -> Result<Vec<PathBuf>, StoreError> {
        files::list(&self.kept_folder(table).join(of.as_str()))
    }
}

/// What is wrong with a part.
pub(super) fn inspect(path: &Path, table: TableKind) -> Result<Vec<Quarantined>, StoreError> {
    match read(path, table) {
        Err(StoreError::Damaged { files }) => Ok(files),
        result => result.map(|_| Vec::new()),
    }
}

/// The rows of a part; `None` for a file that is none, [`StoreError::Damaged`] for a part that is not what it should be.
fn read(path: &Path, table: TableKind) -> Result<Option<RecordBatch>, StoreError> {
    let name = files::file_name(path);
    let Some(expected) = name.strip_suffix(".parquet").filter(|_| !path.is_dir()) else { return Ok(None) };
    let damaged =
        |expected, found| StoreError::Damaged { files: vec![Quarantined { path: path.to_path_buf(), moved_to: None, expected, found }] };
    let (bytes, hash) = files::hash(path)?;
    let hash = hash.to_hex();
    if hash.as_str() != expected {
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        return Err(damaged(format!("blake3 {}", short(expected)), format!("{bytes} bytes with blake3 {}", short(&hash))));
    }
    let other = |found: String| damaged(format!("the columns of {table} as this version has them"), found);
    let batch = match parquet::decode(path) {
        Err(error @ StoreError::Io { .. }) => return Err(error),
        batch => batch.map_err(|error| other(error.to_string()))?,
    };
    table.check(&batch).map_err(|error| other(error.to_string()))?;
    Ok(Some(batch))
}
