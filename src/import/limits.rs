//! How much a table from outside may become: memory, columns, and the length of a row.
//!
//! A small file can hold a large table: numbers that are all the same, texts that a dictionary holds once, rows without the values that
//! others have. So what is decoded is counted as it comes, and what a file says of itself is looked at before it is read.

use std::io::{self, BufRead, Read};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Fields};

use super::BATCH_ROWS;
use crate::store::StoreError;
use crate::tables::batch_bytes;

/// The most columns, fields of nested ones counted.
const MOST_COLUMNS: usize = 16_384;

/// The most values of a batch, which a row more or less does not matter to.
const BATCH_VALUES: usize = 1 << 23;

/// The longest row of a text file, in bytes.
pub(super) const MOST_ROW_BYTES: usize = 64 << 20;

/// The memory that a table may take, and what it has taken so far.
pub(super) struct Budget {
    most: u64,
    taken: u64,
    rows: u64,
}

impl Budget {
    pub(super) fn new(most: u64) -> Self {
        Self { most, taken: 0, rows: 0 }
    }

    /// Counts what was decoded from a file.
    pub(super) fn take(&mut self, path: &Path, batch: &RecordBatch) -> Result<(), StoreError> {
        self.taken = self.taken.saturating_add(batch_bytes(batch) as u64);
        self.rows += batch.num_rows() as u64;
        let found = || format!("found {} after {} rows", self.taken, self.rows);
        if self.taken > self.most { Err(self.exceeded(path, &found())) } else { Ok(()) }
    }

    /// Fails where a file will take `bytes` more, as `why` says.
    pub(super) fn expect(&self, path: &Path, bytes: u64, why: impl FnOnce() -> String) -> Result<(), StoreError> {
        if self.taken.saturating_add(bytes) > self.most { Err(self.exceeded(path, &why())) } else { Ok(()) }
    }

    /// Fails where a text file is larger than its rows may be.
    pub(super) fn expect_text(&self, path: &Path) -> Result<(), StoreError> {
        let bytes = path.metadata().map_err(StoreError::io("read", path))?.len();
        self.expect(path, bytes, || format!("found a file of {bytes}"))
    }

    fn exceeded(&self, path: &Path, found: &str) -> StoreError {
        let most = self.most;
        let advice = "split the table, leave columns out, or say `max_bytes:` on the input";
        wrong(path, format!("expected a table whose rows take at most {most} bytes of memory, {found}; {advice}"))
    }
}

/// Checks how many columns a file has; gives the rows that a batch of them may have.
pub(super) fn batch_rows(path: &Path, fields: &Fields) -> Result<usize, StoreError> {
    let columns: usize = fields.iter().map(|field| leaves(field.data_type())).sum();
    if columns > MOST_COLUMNS {
        let advice = "where they are keys of a map, write it as a text or as a list of key and value";
        let problem = format!("expected at most {MOST_COLUMNS} columns, fields of nested ones counted, found {columns}; {advice}");
        return Err(wrong(path, problem));
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

fn wrong(path: &Path, problem: String) -> StoreError {
    StoreError::Input { path: path.to_path_buf(), line: None, problem }
}

/// A row of a text file that is too long.
pub(super) fn row_too_long() -> String {
    format!("expected a row of at most {MOST_ROW_BYTES} bytes, found a longer one")
}

/// A reader that fails at a line longer than a row may be, before it is in memory.
pub(super) struct ShortLines<R> {
    inner: R,
    line: usize,
}

impl<R> ShortLines<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, line: 0 }
    }
}

impl<R: BufRead> Read for ShortLines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let taken = bytes.len().min(into.len());
        into[..taken].copy_from_slice(&bytes[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<R: BufRead> BufRead for ShortLines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.line > MOST_ROW_BYTES { Err(io::Error::other(row_too_long())) } else { self.inner.fill_buf() }
    }

    fn consume(&mut self, count: usize) {
        // What was filled is still there, so this asks nothing of the system.
        if let Ok(bytes) = self.inner.fill_buf() {
            let read = &bytes[..count.min(bytes.len())];
            self.line = match read.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => read.len() - end - 1,
                None => self.line + read.len(),
            };
        }
        self.inner.consume(count);
    }
}
