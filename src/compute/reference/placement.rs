//! The tokens of a padded batch: the position of each, and the keys it attends to.
//!
//! Built from lengths, never from token ids: a checkpoint may pad with its end token, a real token
//! too.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Added to the score of a hidden key. Finite: a padding row without visible keys stays free of
/// NaN.
const HIDDEN: f32 = -1e30;

/// Positions and attention of one forward pass.
///
/// Columns are counted from the first column of the keys; the queries are the last columns.
#[derive(Clone, Debug)]
pub struct Placement {
    /// `[rows or 1, length]`, i32: the position of each token, counted from its row's first real
    /// token.
    pub(crate) positions: Tensor<2, Int>,
    /// How many columns of each row, its first ones, are not real; empty when all of all rows are.
    padding: Vec<usize>,
    queries: usize,
    keys: usize,
}

impl Placement {
    /// Rows padded at their end; for training, without a cache.
    ///
    /// No real token sees padding, so the lengths do not matter here. Results at padding are
    /// meaningless.
    pub fn right_padded(length: usize, device: &Device) -> Self {
        Self { positions: positions((0..length).collect(), [1, length], device), padding: Vec::new(), queries: length, keys: length }
    }

    /// Rows of these `lengths`, padded at their start to the longest: a prefill. All rows continue
    /// in the same column.
    pub fn left_padded(lengths: &[usize], device: &Device) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if lengths.iter().all(|&length| length == longest) {
            return Self::right_padded(longest, device);
        }
        let padding: Vec<usize> = lengths.iter().map(|length| longest - length).collect();
        let at = padding.iter().flat_map(|padding| (0..longest).map(|column| column.saturating_sub(*padding))).collect();
        Self { positions: positions(at, [lengths.len(), longest], device), padding, queries: longest, keys: longest }
    }

    /// One more token a row, behind a cache of `columns` positions. Each row's first `padding` are
    /// not real.
    pub fn next(padding: &[usize], columns: usize, device: &Device) -> Self {
        let keys = columns + 1;
        if padding.iter().all(|&padding| padding == 0) {
            return Self { positions: positions(vec![columns], [1, 1], device), padding: Vec::new(), queries: 1, keys };
        }
        let at = padding.iter().map(|padding| columns.saturating_sub(*padding)).collect();
        Self { positions: positions(at, [padding.len(), 1], device), padding: padding.to_vec(), queries: 1, keys }
    }

    /// How many columns back a query sees, its own included, in a layer with this window: no more
    /// than there are.
    pub(crate) fn reach(&self, window: usize) -> usize {
        window.min(self.keys)
    }

    /// Added to the scores, `[rows or 1, 1, 1, length, keys]`: 0 where a query sees a key,
    /// [`HIDDEN`] or -∞ where not; `None` when all is seen. A query sees real keys only, its own
    /// and those before it, `reach` of them at most.
    ///
    /// Infinite where every query sees a key, because the exponential of a large finite number
    /// takes the slow way of numbers that are almost 0: 6 to 15 % of a training step.
    pub(crate) fn bias(&self, reach: usize) -> Option<Tensor<5>> {
        let (hidden, rows): (f32, &[usize]) = match self.padding[..] {
            [] if self.queries <= 1 && reach >= self.keys => return None,
            [] => (f32::NEG_INFINITY, &[0]),
            _ => (HIDDEN, &self.padding),
        };
        let mut bias = Vec::with_capacity(rows.len() * self.queries * self.keys);
        for &padding in rows {
            for query in self.keys - self.queries..self.keys {
                let first = padding.max((query + 1).saturating_sub(reach));
                bias.extend((0..self.keys).map(|key| if key <= query && key >= first { 0.0 } else { hidden }));
            }
        }
        let shape = [rows.len(), 1, 1, self.queries, self.keys];
        Some(Tensor::from_data(TensorData::new(bias, shape), (&self.positions.device(), DType::F32)))
    }
}

fn positions(values: Vec<usize>, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}
