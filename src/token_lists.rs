//! Token ids of many rows, back to back in one shared buffer on the host: what an Arrow list column of Int32 is, without its schema.
//!
//! Clones and slices share the memory. Knows nothing of tables, tensors or padding.

use arrow::buffer::{OffsetBuffer, ScalarBuffer};

/// Why token ids are not lists that can be computed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sequences: {0}")]
pub struct TokenListsError(String);

/// Token sequences of different lengths, none of them empty.
#[derive(Clone, Debug)]
pub struct TokenLists {
    values: ScalarBuffer<i32>,
    /// Where each row begins in `values`, and where the last one ends.
    offsets: OffsetBuffer<i32>,
}

impl TokenLists {
    /// The rows `offsets[row]..offsets[row + 1]` of `values`, without a copy.
    ///
    /// # Errors
    /// When an offset is outside the values, or a row is empty.
    pub fn new(values: ScalarBuffer<i32>, offsets: OffsetBuffer<i32>) -> Result<Self, TokenListsError> {
        // Offsets ascend, `OffsetBuffer` sees to it.
        let end = offsets.last().map_or(0, |end| *end as usize);
        if end > values.len() {
            return Err(TokenListsError(format!("lengths add up to {end} tokens, but there are {}", values.len())));
        }
        if let Some(row) = offsets.windows(2).position(|bounds| bounds[0] == bounds[1]) {
            return Err(TokenListsError(format!("row {row} is empty, expected at least one token")));
        }
        Ok(Self { values, offsets })
    }

    /// Rows of these `lengths`, whose ids stand one after the other in `values`.
    ///
    /// # Errors
    /// When the lengths do not add up to the ids, a row is empty, or the ids are more than `i32` counts.
    pub fn from_lengths(values: Vec<i32>, lengths: &[usize]) -> Result<Self, TokenListsError> {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut total = 0_usize;
        offsets.push(0);
        for &length in lengths {
            total = total.saturating_add(length);
            let too_many = |_| TokenListsError(format!("{total} tokens, expected at most {} in one table part", i32::MAX));
            offsets.push(i32::try_from(total).map_err(too_many)?);
        }
        if total != values.len() {
            return Err(TokenListsError(format!("lengths add up to {total} tokens, but there are {}", values.len())));
        }
        Self::new(ScalarBuffer::from(values), OffsetBuffer::new(ScalarBuffer::from(offsets)))
    }

    /// Rows given one by one.
    ///
    /// # Errors
    /// When a row is empty, or the ids are more than `i32` counts.
    pub fn from_rows<R: AsRef<[i32]>>(rows: &[R]) -> Result<Self, TokenListsError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
        let mut values = Vec::with_capacity(lengths.iter().sum());
        rows.iter().for_each(|row| values.extend_from_slice(row.as_ref()));
        Self::from_lengths(values, &lengths)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The ids of a row; `None` when it does not exist.
    pub fn get(&self, row: usize) -> Option<&[i32]> {
        let start = *self.offsets.get(row)?;
        let end = *self.offsets.get(row.checked_add(1)?)?;
        self.values.get(start as usize..end as usize)
    }

    /// The ids of a row.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn row(&self, row: usize) -> Result<&[i32], TokenListsError> {
        self.get(row).ok_or_else(|| TokenListsError(format!("row {row} does not exist, there are {}", self.rows())))
    }

    /// The rows, first to last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[i32]> {
        self.offsets.windows(2).map(|bounds| &self.values[bounds[0] as usize..bounds[1] as usize])
    }

    /// The length of a row in tokens; 0 for a row that does not exist.
    pub fn length(&self, row: usize) -> usize {
        self.get(row).map_or(0, <[i32]>::len)
    }

    /// The length of each row in tokens.
    pub fn lengths(&self) -> Vec<usize> {
        self.offsets.lengths().collect()
    }

    /// The ids of all rows, in the memory that they share, and where each row begins in it.
    pub fn into_parts(self) -> (ScalarBuffer<i32>, OffsetBuffer<i32>) {
        (self.values, self.offsets)
    }
}
