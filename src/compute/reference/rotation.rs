//! Rotary positions (Su et al. 2021, arXiv 2104.09864): queries and keys are rotated by their
//! positions.
//!
//! Hugging Face's layout: the first half of a head's rotated part pairs with its second half. Knows
//! nothing of attention.

use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::model::RopeTable;

/// The angles of one forward pass.
pub(crate) struct Rotation {
    cosines: Tensor<4>,
    sines: Tensor<4>,
}

impl Rotation {
    /// # Shapes
    /// - positions: `[rows or 1, length]`
    /// - held: `[rows or 1, length, 1, pairs]`
    pub(crate) fn new(positions: Tensor<2, Int>, table: &RopeTable) -> Self {
        let frequencies = TensorData::new(table.frequencies.clone(), [1, 1, 1, table.frequencies.len()]);
        let frequencies: Tensor<4> = Tensor::from_data(frequencies, (&positions.device(), DType::F32));
        let [rows, length] = positions.dims();
        let angles = positions.float().cast(DType::F32).reshape([rows, length, 1, 1]) * frequencies;
        let (cosines, sines) = (angles.clone().cos(), angles.sin());
        if table.factor == 1.0 { Self { cosines, sines } } else { Self { cosines: cosines * table.factor, sines: sines * table.factor } }
    }

    /// # Shapes
    /// - x, output: `[rows, length, heads, head_dim]`
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let (width, half) = (x.dims()[3], self.cosines.dims()[3]);
        let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        let rotated_first = first.clone() * self.cosines.clone() - second.clone() * self.sines.clone();
        let rotated_second = second * self.cosines.clone() + first * self.sines.clone();
        let mut parts = vec![rotated_first, rotated_second];
        if 2 * half < width {
            parts.push(x.narrow(3, 2 * half, width - 2 * half));
        }
        Tensor::cat(parts, 3)
    }
}
