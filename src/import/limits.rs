//! Limits of an import: the memory of a table, the number of its columns, the length of a row.
//!
//! A small file can hold a large table: runs of equal numbers, texts stored once in a dictionary,
//! rows that lack the columns of other rows. So decoded batches are counted as they come, and a
//! file's own metadata is checked before it is read.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Fields};

use super::error::ImportError;
use crate::tables::batch_bytes;

/// Rows of a batch, at most.
const BATCH_ROWS: usize = 8192;

/// Columns of a table, at most. Fields of nested columns count.
const MOST_COLUMNS: usize = 16_384;

/// Values of a batch, at most.
const BATCH_VALUES: usize = 1 << 23;

/// The longest row of a text file, in bytes.
pub(super) const MOST_ROW_BYTES: usize = 64 << 20;

/// The memory that a table may take, and the memory taken so far.
pub(super) struct Budget {
    most: u64,
    taken: u64,
    rows: u64,
}

impl Budget {
    /// A budget of `most` bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { most, taken: 0, rows: 0 }
    }

    /// Counts a decoded batch of a file. Fails beyond the budget.
    pub(super) fn take(&mut self, path: &Path, batch: &RecordBatch) -> Result<(), ImportError> {
        self.taken = self.taken.saturating_add(batch_bytes(batch) as u64);
        self.rows += batch.num_rows() as u64;
        let found = || format!("found {} after {} rows", self.taken, self.rows);
        if self.taken > self.most { Err(self.exceeded(path, &found())) } else { Ok(()) }
    }

    /// Fails if `bytes` more exceed the budget; `found` is for the error.
    pub(super) fn expect(&self, path: &Path, bytes: u64, found: impl FnOnce() -> String) -> Result<(), ImportError> {
        if self.taken.saturating_add(bytes) > self.most { Err(self.exceeded(path, &found())) } else { Ok(()) }
    }

    /// Fails if a file is larger than the budget of its rows.
    pub(super) fn expect_file(&self, path: &Path) -> Result<(), ImportError> {
        let bytes = path.metadata().map_err(ImportError::io(path))?.len();
        self.expect(path, bytes, || format!("found a file of {bytes}"))
    }

    fn exceeded(&self, path: &Path, found: &str) -> ImportError {
        let most = self.most;
        let advice = "split the table, leave columns out, or say `max_bytes:` on the input";
        ImportError::file(path, format!("expected a table whose rows take at most {most} bytes of memory, {found}; {advice}"))
    }
}

/// Checks the number of a file's columns. Returns the number of rows that a batch of them may have.
pub(super) fn batch_rows(path: &Path, fields: &Fields) -> Result<usize, ImportError> {
    let columns: usize = fields.iter().map(|field| leaves(field.data_type())).sum();
    if columns > MOST_COLUMNS {
        let advice = "where they are keys of a map, write it as a text or as a list of key and value";
        let problem = format!("expected at most {MOST_COLUMNS} columns, fields of nested ones counted, found {columns}; {advice}");
        return Err(ImportError::file(path, problem));
    }
    Ok((BATCH_VALUES / columns.max(1)).clamp(1, BATCH_ROWS))
}

fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum::<usize>().max(1),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            leaves(item.data_type())
        }
        _ => 1,
    }
}

/// The problem of a row that is too long.
pub(super) fn row_too_long() -> String {
    format!("expected a row of at most {MOST_ROW_BYTES} bytes, found a longer one")
}
