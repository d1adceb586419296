//! Memoized rows, shared by all runs, by the fingerprint of their source.
//!
//! A memoized table only grows, by parts named for their hash. It has no manifest, so several runs
//! can add parts at once, and the name of a part verifies its contents. A missing part costs only
//! time. Knows nothing of the meaning of the rows.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

use super::{OutputKey, Quarantined, RunLock, Runs, StoreError, files, parquet};
use crate::dag::fingerprint::Fingerprint;
use crate::tables::TableKind;

/// The memoized rows, as used by a locked run.
#[derive(Clone, Copy, Debug)]
pub struct Memo<'a> {
    run: &'a RunLock,
}

impl RunLock {
    /// The memoized rows of all runs.
    pub fn memo(&self) -> Memo<'_> {
        Memo { run: self }
    }
}

impl Memo<'_> {
    /// Reads the memoized parts of `table` for the fingerprint `source`, in the order of their
    /// names. Rows can be duplicates if two runs added them at once.
    ///
    /// A damaged part, or a part of another table version, is moved to this run's `quarantine/` and
    /// recorded in the journal for the node of `key`.
    ///
    /// # Errors
    /// Files cannot be read or moved.
    pub fn read(
        &self,
        key: &OutputKey,
        table: TableKind,
        source: &Fingerprint,
    ) -> Result<(Vec<RecordBatch>, Vec<Quarantined>), StoreError> {
        let mut batches = Vec::new();
        let mut reports = Vec::new();
        for path in self.run.runs().memo_parts(table, source)? {
            match read_part(&path, table) {
                Ok(batch) => batches.extend(batch),
                Err(StoreError::Damaged { files }) => {
                    for mut report in files {
                        report.moved_to = self.run.quarantine().move_aside(&path, &format!("{table}-{}", source.short()))?;
                        reports.push(report);
                    }
                }
                // Another run has moved it aside.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.run.quarantine().report(key, &reports)?;
        Ok((batches, reports))
    }

    /// Adds a part to the memoized `table` for the fingerprint `source`, atomically and durably.
    ///
    /// # Errors
    /// The rows violate the table's rules, or the file cannot be written.
    pub fn add(&self, table: TableKind, source: &Fingerprint, batch: &RecordBatch) -> Result<(), StoreError> {
        let folder = self.run.runs().memo_folder(table).join(source.as_str());
        table.check(batch).map_err(|source| StoreError::Table { path: folder.clone(), source })?;
        let bytes = parquet::encode(batch, &[("fingerprint", source.to_string())])
            .map_err(|source| StoreError::Parquet { path: folder.clone(), source })?;
        files::create_folder(&folder)?;
        files::replace(&folder.join(format!("{}.parquet", blake3::hash(&bytes))), &bytes, &self.run.cache_temporary()?)
    }
}

impl Runs {
    /// The folder of a memoized table, with one folder a fingerprint.
    pub(super) fn memo_folder(&self, table: TableKind) -> PathBuf {
        self.cache_folder().join(table.name())
    }

    /// The files of a memoized table for the fingerprint `source`.
    pub(super) fn memo_parts(&self, table: TableKind, source: &Fingerprint) -> Result<Vec<PathBuf>, StoreError> {
        files::list(&self.memo_folder(table).join(source.as_str()))
    }
}

/// The damage of a part; empty for an intact one.
pub(super) fn inspect(path: &Path, table: TableKind) -> Result<Vec<Quarantined>, StoreError> {
    match read_part(path, table) {
        Err(StoreError::Damaged { files }) => Ok(files),
        result => result.map(|_| Vec::new()),
    }
}

/// The rows of a part; `None` for other files. A damaged part is [`StoreError::Damaged`].
fn read_part(path: &Path, table: TableKind) -> Result<Option<RecordBatch>, StoreError> {
    let name = files::file_name(path);
    let Some(expected) = name.strip_suffix(".parquet") else { return Ok(None) };
    if path.is_dir() {
        return Ok(None);
    }
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
