//! Where the tokens of a padded batch stand: the position of each, and which keys it may attend to.
//!
//! Built from lengths, never from token ids: a checkpoint may pad with its end token, and that token is also a real one.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Added to the score of a key that must not be seen. Finite, so that a padding row that sees nothing stays free of NaN.
const HIDDEN: f32 = -1e30;

/// Positions and attention of one forward pass.
#[derive(Clone, Debug)]
pub struct Placement {
    /// `[rows or 1, length]`, i32: the position of each token, counted from its row's first real token.
    pub(super) positions: Tensor<2, Int>,
    /// `[rows or 1, 1, 1, length, keys]`: 0 where a query sees a key, [`HIDDEN`] or -∞ where not; `None` when all is seen.
    pub(super) bias: Option<Tensor<5>>,
}

impl Placement {
    /// Rows that start at their first token and are padded at their end; for training, without a cache.
    ///
    /// No row's own tokens ever see its padding, so the lengths do not matter here; what is computed on padding is meaningless.
    pub fn right_padded(length: usize, device: &Device) -> Self {
        Self { positions: positions((0..length).collect(), [1, length], device), bias: causal(length, device) }
    }

    /// Rows of these `lengths`, padded at their start to the longest: a prefill, so that all rows go on in the same column.
    pub fn left_padded(lengths: &[usize], device: &Device) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if lengths.iter().all(|&length| length == longest) {
            return Self::right_padded(longest, device);
        }
        let mut bias = Vec::with_capacity(lengths.len() * longest * longest);
        let mut at = Vec::with_capacity(lengths.len() * longest);
        for length in lengths {
            let padding = longest - length;
            at.extend((0..longest).map(|column| column.saturating_sub(padding)));
            for query in 0..longest {
                bias.extend((0..longest).map(|key| if key <= query && key >= padding { 0.0 } else { HIDDEN }));
            }
        }
        let shape = [lengths.len(), longest];
        Self { positions: positions(at, shape, device), bias: Some(float(bias, [shape[0], 1, 1, longest, longest], device)) }
    }

    /// One more token a row, behind a cache of `columns` positions of which each row's first `padding` are not real.
    pub fn next(padding: &[usize], columns: usize, device: &Device) -> Self {
        if padding.iter().all(|&padding| padding == 0) {
            return Self { positions: positions(vec![columns], [1, 1], device), bias: None };
        }
        let (rows, keys) = (padding.len(), columns + 1);
        let mut bias = Vec::with_capacity(rows * keys);
        for &padding in padding {
            bias.extend((0..keys).map(|key| if key < padding { HIDDEN } else { 0.0 }));
        }
        let at = padding.iter().map(|padding| columns.saturating_sub(*padding)).collect();
        Self { positions: positions(at, [rows, 1], device), bias: Some(float(bias, [rows, 1, 1, 1, keys], device)) }
    }
}

/// Each token sees itself and what is before it: `[1, 1, 1, length, length]`.
///
/// Infinite, because every query sees a key, and because the exponential of a large finite number takes the slow way of numbers
/// that are almost 0: 6 to 15 % of a training step.
fn causal(length: usize, device: &Device) -> Option<Tensor<5>> {
    if length <= 1 {
        return None;
    }
    let bias = (0..length * length).map(|at| if at % length <= at / length { 0.0 } else { f32::NEG_INFINITY }).collect();
    Some(float(bias, [1, 1, 1, length, length], device))
}

fn positions(values: Vec<usize>, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}

fn float(values: Vec<f32>, shape: [usize; 5], device: &Device) -> Tensor<5> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}
