//! The annotations of a run: one Parquet file in its folder, outside of manifests and fingerprints.
//!
//! It needs no [`super::RunLock`], so rows are annotated while the run goes on. A lock of its own
//! keeps two annotating processes apart. Knows nothing of the annotated tables.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use arrow::array::RecordBatch;

use super::{Run, StoreError, files, parquet};
use crate::disk;
use crate::tables::TableKind;
use crate::tables::annotations::{Row, batch, rows};

/// The file in the run's folder.
const FILE: &str = "annotations.parquet";
/// Its lock.
const LOCK: &str = "annotations.lock";
/// The new file before it replaces the old one.
const TEMPORARY: &str = "annotations.parquet.tmp";

/// The annotations of a run.
#[derive(Clone, Debug)]
pub struct Annotations {
    folder: PathBuf,
}

impl Run {
    /// The run's annotations; their file need not exist.
    pub fn annotations(&self) -> Annotations {
        Annotations { folder: self.folder().to_path_buf() }
    }
}

impl Annotations {
    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// A value that differs after each change: the length of the file and its time. `None` without
    /// annotations.
    pub fn version(&self) -> Option<(u64, SystemTime)> {
        let metadata = self.path().metadata().ok()?;
        Some((metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    /// All annotations, sorted by the key of their rows.
    ///
    /// # Errors
    /// The file cannot be read, or is not a table of annotations.
    pub fn read(&self) -> Result<Vec<Row>, StoreError> {
        let path = self.path();
        if !path.exists() {
            return Ok(Vec::new());
        }
        let wrong = |problem: String| StoreError::Input {
            path: path.clone(),
            line: None,
            problem: format!("expected annotations, found something else ({problem}); move the file away to go on without them"),
        };
        let found = match parquet::decode(&path) {
            Err(StoreError::Parquet { source, .. }) => return Err(wrong(source.to_string())),
            found => found?,
        };
        TableKind::Annotations.check(&found).and_then(|()| rows(&found)).map_err(|error| wrong(error.to_string()))
    }

    /// As [`Self::read`], as one batch, possibly without rows.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn batch(&self) -> Result<RecordBatch, StoreError> {
        Ok(batch(&self.read()?))
    }

    /// Replaces the annotation of a row; one without a flag and a note is removed. The file is
    /// replaced as a whole, so a reader sees the old or the new annotations.
    ///
    /// # Errors
    /// The annotation names no row, or the file cannot be read or written.
    pub fn set(&self, annotation: Row) -> Result<(), StoreError> {
        let lock = self.folder.join(LOCK);
        let held = disk::File::open(&lock).map_err(StoreError::io("lock", &lock))?;
        match held.as_system().lock() {
            // Where there are no locks, one process is expected.
            Err(error) if error.kind() != ErrorKind::Unsupported => return Err(StoreError::io("lock", &lock)(error)),
            _ => {}
        }
        let mut kept = self.read()?;
        kept.retain(|other| key(other) != key(&annotation));
        if annotation.flagged || annotation.note.is_some() {
            kept.push(annotation);
        }
        kept.sort_by(|one, other| key(one).cmp(&key(other)));
        self.replace(&batch(&kept))
    }

    fn replace(&self, rows: &RecordBatch) -> Result<(), StoreError> {
        let path = self.path();
        TableKind::Annotations.check(rows).map_err(|source| StoreError::Table { path: path.clone(), source })?;
        let bytes = parquet::encode(rows, &[]).map_err(|source| StoreError::Parquet { path: path.clone(), source })?;
        files::replace(&path, &bytes, &self.folder.join(TEMPORARY))
    }
}

type Key<'a> = (&'a str, Option<i32>, Option<&'a str>, Option<i32>, Option<i32>, Option<&'a str>, Option<i64>);

/// The key of the annotated row.
fn key(row: &Row) -> Key<'_> {
    (&row.node, row.row_iteration, row.prompt_id.as_deref(), row.sampled_iteration, row.response_index, row.task.as_deref(), row.item)
}
