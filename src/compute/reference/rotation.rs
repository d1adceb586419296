//! Rotary positions (Su et al. 2021, arXiv 2104.09864): queries and keys are rotated by their
//! positions.
//!
//! Hugging Face's layout: a head's first half pairs with its second half. Knows nothing of
//! attention.

use burn::tensor::{DType, Int, Tensor, TensorData};

/// The angles of one forward pass.
pub(crate) struct Rotation {
    cosines: Tensor<4>,
    sines: Tensor<4>,
}

impl Rotation {
    /// # Shapes
    /// - positions: `[rows or 1, length]`
    /// - frequencies: `head_dim / 2` of them
    /// - held: `[rows or 1, length, 1, head_dim / 2]`
    pub(crate) fn new(positions: Tensor<2, Int>, frequencies: &[f32]) -> Self {
        let frequencies = TensorData::new(frequencies.to_vec(), [1, 1, 1, frequencies.len()]);
        let frequencies: Tensor<4> = Tensor::from_data(frequencies, (&positions.device(), DType::F32));
        let [rows, length] = positions.dims();
        let angles = positions.float().cast(DType::F32).reshape([rows, length, 1, 1]) * frequencies;
        Self { cosines: angles.clone().cos(), sines: angles.sin() }
    }

    /// # Shapes
    /// - x, output: `[rows, length, heads, head_dim]`
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let rotated_first = first.clone() * self.cosines.clone() - second.clone() * self.sines.clone();
        let rotated_second = second * self.cosines.clone() + first * self.sines.clone();
        Tensor::cat(vec![rotated_first, rotated_second], 3)
    }
}
