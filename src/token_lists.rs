//! Ragged token sequences, back to back in one tensor, as an Arrow list column stores them.
//!
//! Rows are gathered and padded on the device by an index select: an Arrow buffer can back the tensor without being copied or rebuilt.

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::ModelError;

/// Where a shorter row is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// At its start: rows end in the same column.
    Left,
    /// At its end: rows start in the same column.
    Right,
}

/// Token sequences of different lengths.
#[derive(Clone, Debug)]
pub struct Sequences {
    token_ids: Tensor<1, Int>,
    lengths: Vec<usize>,
    starts: Vec<usize>,
}

impl Sequences {
    /// Rows of these `lengths`, whose ids stand one after the other in `token_ids` (i32).
    ///
    /// # Errors
    /// When the lengths do not add up to the ids, a row is empty, or the ids are not i32.
    pub fn new(token_ids: Tensor<1, Int>, lengths: Vec<usize>) -> Result<Self, ModelError> {
        let mut starts = Vec::with_capacity(lengths.len());
        let mut total = 0;
        for (row, &length) in lengths.iter().enumerate() {
            if length == 0 {
                return Err(ModelError::Sequences(format!("row {row} is empty, expected at least one token")));
            }
            starts.push(total);
            total += length;
        }
        let [found] = token_ids.dims();
        if found != total {
            return Err(ModelError::Sequences(format!("lengths add up to {total} tokens, but there are {found}")));
        }
        if token_ids.dtype() != DType::I32 {
            return Err(ModelError::Sequences(format!("token ids are {:?}, expected I32", token_ids.dtype())));
        }
        if i32::try_from(total).is_err() {
            return Err(ModelError::Sequences(format!("{total} tokens, expected at most {} in one table part", i32::MAX)));
        }
        Ok(Self { token_ids, lengths, starts })
    }

    /// Rows given one by one, on the host.
    ///
    /// # Errors
    /// When a row is empty.
    pub fn from_rows(rows: &[Vec<i32>], device: &burn::tensor::Device) -> Result<Self, ModelError> {
        let ids = rows.concat();
        let count = ids.len();
        let ids = Tensor::from_data(TensorData::new(ids, [count]), (device, DType::I32));
        Self::new(ids, rows.iter().map(Vec::len).collect())
    }

    /// All ids, row after row: `[sum of lengths]`, i32.
    pub fn token_ids(&self) -> &Tensor<1, Int> {
        &self.token_ids
    }

    /// The ids alone, leaving the lengths; the tensor is then no longer shared.
    pub fn into_parts(self) -> (Tensor<1, Int>, Vec<usize>) {
        (self.token_ids, self.lengths)
    }

    /// The length of each row in tokens.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The chosen `rows`, in that order, padded to the longest of them; computed on the device of the ids.
    ///
    /// What stands in the padding is some id of the row itself: only lengths say what is real.
    ///
    /// # Shapes
    /// - output: `[rows, longest]`, i32
    ///
    /// # Errors
    /// When no row is chosen or one does not exist.
    pub fn gather(&self, rows: &[usize], padding: Padding) -> Result<Tensor<2, Int>, ModelError> {
        let mut spans = Vec::with_capacity(rows.len());
        for &row in rows {
            match (self.starts.get(row), self.lengths.get(row)) {
                (Some(&start), Some(&length)) => spans.push((start, length)),
                _ => return Err(ModelError::Sequences(format!("row {row} does not exist, there are {}", self.rows()))),
            }
        }
        let longest = spans.iter().map(|(_, length)| *length).max();
        let longest = longest.ok_or_else(|| ModelError::Sequences("no row was chosen".to_string()))?;
        let mut indices: Vec<i32> = Vec::with_capacity(rows.len() * longest);
        for (start, length) in spans {
            indices.extend((0..longest).map(|column| {
                let within = match padding {
                    Padding::Left => column.saturating_sub(longest - length),
                    Padding::Right => column.min(length - 1),
                };
                // All indices are below the number of tokens, which `new` found to fit.
                (start + within) as i32
            }));
        }
        let indices = TensorData::new(indices, [rows.len() * longest]);
        let indices = Tensor::from_data(indices, (&self.token_ids.device(), DType::I32));
        Ok(self.token_ids.clone().select(0, indices).reshape([rows.len(), longest]))
    }
}
