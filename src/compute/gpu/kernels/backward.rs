//! Backward passes of norms and activations. Knows nothing of attention, nor of the use of
//! gradients.

use cubecl::prelude::*;

use super::{UNITS, total};

/// Units of a cube for sums of columns: so many columns beside each other, and so many rows at
/// once.
pub(in crate::compute::gpu) const COLUMNS: usize = 32;
/// See [`COLUMNS`].
pub(in crate::compute::gpu) const ROWS_AT_ONCE: usize = 16;

/// The backward pass of [`norm`](super::norm) of all rows: with scale = 1 / √(mean x² + ε) and by =
/// scale · weight · by_out, by_x is by − x · scale² · mean(x · by). A cube a row.
///
/// # Shapes
/// - x, by_out, by_x: `[rows, width]`
/// - weight: `[width]`
/// - scales: `[rows]`, for [`norm_weight_back`]
#[cube(launch)]
pub(in crate::compute::gpu) fn norm_back(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    by_out: &Tensor<f32>,
    by_x: &mut Tensor<f32>,
    scales: &mut Tensor<f32>,
    width: usize,
    epsilon: f32,
) {
    let row = CUBE_POS_X as usize;
    let start = row * width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut squares = 0.0f32;
    let mut common = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        let value = x[start + at];
        squares += value * value;
        common += value * weight[at] * by_out[start + at];
        at += comptime!(UNITS);
    }
    let width_f32 = f32::cast_from(width as u32);
    let mean = total(squares, &mut shared) / width_f32;
    let common = total(common, &mut shared) / width_f32;
    let scale = 1.0f32 / (mean + epsilon).sqrt();
    if UNIT_POS == 0 {
        scales[row] = scale;
    }
    let along = common * scale * scale;
    let mut at = UNIT_POS as usize;
    while at < width {
        by_x[start + at] = scale * (weight[at] * by_out[start + at] - x[start + at] * along);
        at += comptime!(UNITS);
    }
}

/// What a norm's weight gets back: Σ over rows of x · scale · by_out. A cube [`COLUMNS`] columns,
/// whose sums of every [`ROWS_AT_ONCE`]th row are put together in their order.
///
/// # Shapes
/// - x, by_out: `[rows, width]`
/// - scales: `[rows]`
/// - by_weight: `[width]`
#[cube(launch)]
pub(in crate::compute::gpu) fn norm_weight_back(
    x: &Tensor<f32>,
    by_out: &Tensor<f32>,
    scales: &Tensor<f32>,
    by_weight: &mut Tensor<f32>,
    rows: usize,
    width: usize,
) {
    let column = CUBE_POS_X as usize * comptime!(COLUMNS) + UNIT_POS_X as usize;
    let mut sum = 0.0f32;
    if column < width {
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            sum += x[row * width + column] * scales[row] * by_out[row * width + column];
            row += comptime!(ROWS_AT_ONCE);
        }
    }
    let mut sums = Shared::<[f32]>::new_slice(comptime!(COLUMNS * ROWS_AT_ONCE));
    sums[UNIT_POS_Y as usize * comptime!(COLUMNS) + UNIT_POS_X as usize] = sum;
    sync_cube();
    if UNIT_POS_Y == 0 && column < width {
        let mut all = 0.0f32;
        for row in 0..comptime!(ROWS_AT_ONCE) {
            all += sums[row * comptime!(COLUMNS) + UNIT_POS_X as usize];
        }
        by_weight[column] = all;
    }
}

/// The backward pass of [`swiglu`](super::swiglu).
///
/// # Shapes
/// - gate_up, by_gate_up: `[rows, 2 · width]`
/// - by_out: `[rows, width]`
#[cube(launch)]
pub(in crate::compute::gpu) fn swiglu_back(gate_up: &Tensor<f32>, by_out: &Tensor<f32>, by_gate_up: &mut Tensor<f32>, width: usize) {
    let row = CUBE_POS_X as usize;
    let column = CUBE_POS_Y as usize * comptime!(UNITS) + UNIT_POS as usize;
    if column < width {
        let at = row * 2 * width + column;
        let gate = gate_up[at];
        let up = gate_up[at + width];
        let by = by_out[row * width + column];
        let open = 1.0f32 / (1.0f32 + (-gate).exp());
        by_gate_up[at] = by * up * open * (1.0f32 + gate * (1.0f32 - open));
        by_gate_up[at + width] = by * gate * open;
    }
}
