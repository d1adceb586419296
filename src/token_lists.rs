//! Token ids of many rows in one shared buffer on the host, laid out as an Arrow list column of
//! Int32.
//!
//! Clones and selections share the memory. Knows nothing of tables, tensors or padding.

use std::sync::Arc;

use arrow::buffer::{OffsetBuffer, ScalarBuffer};

/// The problem with token ids or their rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sequences: {0}")]
pub struct TokenListsError(String);

/// Token sequences of different lengths, none of them empty. A row may lie anywhere in the buffer.
#[derive(Clone, Debug)]
pub struct TokenLists {
    values: ScalarBuffer<i32>,
    /// Where each row begins and ends in `values`.
    bounds: Arc<[(usize, usize)]>,
}

impl TokenLists {
    /// The rows `offsets[row]..offsets[row + 1]` of `values`, without a copy of these.
    ///
    /// # Errors
    /// When an offset is outside the values, or a row is empty.
    pub fn new(values: ScalarBuffer<i32>, offsets: &OffsetBuffer<i32>) -> Result<Self, TokenListsError> {
        // Offsets ascend from 0 on, `OffsetBuffer` sees to it.
        let bounds = offsets.windows(2).map(|bounds| (bounds[0] as usize, bounds[1] as usize));
        Self::from_bounds(values, bounds.collect())
    }

    fn from_bounds(values: ScalarBuffer<i32>, bounds: Arc<[(usize, usize)]>) -> Result<Self, TokenListsError> {
        if let Some(row) = bounds.iter().position(|(start, end)| start == end) {
            return Err(TokenListsError(format!("row {row} is empty, expected at least one token")));
        }
        let last = bounds.iter().map(|(_, end)| *end).max().unwrap_or(0);
        if last > values.len() {
            return Err(TokenListsError(format!("lengths add up to {last} tokens, but there are {}", values.len())));
        }
        Ok(Self { values, bounds })
    }

    /// Rows of these `lengths`; `values` has their ids one after the other.
    ///
    /// # Errors
    /// When the lengths do not add up to the ids, or a row is empty.
    pub fn from_lengths(values: Vec<i32>, lengths: &[usize]) -> Result<Self, TokenListsError> {
        let mut bounds = Vec::with_capacity(lengths.len());
        let mut total = 0;
        for length in lengths {
            bounds.push((total, total + length));
            total += length;
        }
        if total < values.len() {
            return Err(TokenListsError(format!("lengths add up to {total} tokens, but there are {}", values.len())));
        }
        Self::from_bounds(ScalarBuffer::from(values), bounds.into())
    }

    /// Rows given one by one.
    ///
    /// # Errors
    /// When a row is empty.
    pub fn from_rows<R: AsRef<[i32]>>(rows: &[R]) -> Result<Self, TokenListsError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
        let mut values = Vec::with_capacity(lengths.iter().sum());
        rows.iter().for_each(|row| values.extend_from_slice(row.as_ref()));
        Self::from_lengths(values, &lengths)
    }

    /// The chosen rows, in the given order; they share the memory.
    ///
    /// # Errors
    /// When a row does not exist.
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Result<Self, TokenListsError> {
        let bounds = rows.into_iter().map(|row| self.bounds_of(row)).collect::<Result<_, _>>()?;
        Ok(Self { values: self.values.clone(), bounds })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.bounds.len()
    }

    fn bounds_of(&self, row: usize) -> Result<(usize, usize), TokenListsError> {
        let bounds = self.bounds.get(row).copied();
        bounds.ok_or_else(|| TokenListsError(format!("row {row} does not exist, there are {}", self.rows())))
    }

    /// The ids of a row.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn row(&self, row: usize) -> Result<&[i32], TokenListsError> {
        let (start, end) = self.bounds_of(row)?;
        Ok(&self.values[start..end])
    }

    /// The rows, first to last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[i32]> {
        self.bounds.iter().map(|&(start, end)| &self.values[start..end])
    }

    /// The length of a row in tokens; 0 for a missing row.
    pub fn length(&self, row: usize) -> usize {
        self.bounds.get(row).map_or(0, |(start, end)| end - start)
    }

    /// The length of each row in tokens.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.bounds.iter().map(|(start, end)| end - start)
    }

    /// The ids of all rows, one row after the other, and the length of each. Rows in this order
    /// share their memory; others are copied.
    pub fn into_parts(self) -> (ScalarBuffer<i32>, Vec<usize>) {
        let lengths = self.lengths().collect();
        let start = self.bounds.first().map_or(0, |(start, _)| *start);
        let end = self.bounds.last().map_or(0, |(_, end)| *end);
        if self.bounds.windows(2).all(|bounds| bounds[0].1 == bounds[1].0) {
            return (self.values.slice(start, end - start), lengths);
        }
        let values: Vec<i32> = self.iter().flatten().copied().collect();
        (ScalarBuffer::from(values), lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_share_the_memory_and_rows_in_order_are_not_copied() {
        let lists = TokenLists::from_rows(&[vec![1, 2, 3], vec![4], vec![5, 6]]).unwrap();
        let memory = lists.values.as_ptr();
        let part = lists.select(1..3).unwrap();
        let (values, lengths) = part.into_parts();
        assert_eq!((values.to_vec(), lengths), (vec![4, 5, 6], vec![1, 2]));
        // The fourth number of the same memory.
        assert_eq!(values.as_ptr(), memory.wrapping_add(3));
        let swapped = lists.select([2, 0, 2]).unwrap();
        assert_eq!(swapped.row(1).unwrap().as_ptr(), memory);
        assert_eq!(swapped.iter().map(<[i32]>::len).collect::<Vec<_>>(), [2, 3, 2]);
        assert_eq!(swapped.into_parts().0.to_vec(), [5, 6, 1, 2, 3, 5, 6]);
        assert!(lists.select([3]).unwrap_err().to_string().contains("row 3 does not exist, there are 3"));
        assert!(TokenLists::from_lengths(vec![1, 2], &[1]).unwrap_err().to_string().contains("add up to 1 tokens, but there are 2"));
    }
}
