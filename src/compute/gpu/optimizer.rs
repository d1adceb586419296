//! An optimizer's step on a tensor on a GPU, in one pass over its numbers. Tensor operations would
//! take a dozen passes and launches.
//!
//! Knows nothing of models, parameters or schedules.

use burn::backend::Cube;
use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::compute::update::AdamW;

/// Units of a cube.
const UNITS: usize = 256;

/// Cubes for the sum of a tensor's squares, one partial sum each.
const SUMS: usize = 64;

/// The weight, the mean and the mean square after an update, as
/// [`kernels::adam_w`](crate::compute::cpu::kernels::adam_w) has it of `factor` times the gradient;
/// `None` when one of them is not f32 on a GPU.
///
/// # Shapes
/// - weight, gradient, mean, square: `[numbers]`
pub(super) fn adam_w(rule: AdamW, factor: f64, tensors: &[Tensor<1>; 4]) -> Option<[Tensor<1>; 3]> {
    let [weight, gradient, mean, square] = tensors;
    let numbers = weight.dims()[0];
    let made = [(); 3].map(|()| Tensor::<1>::empty([numbers], (&weight.device(), DType::F32)));
    let [new_weight, new_mean, new_square] = &made;
    adam_w_kernel::launch(
        &primitive(weight)?.client,
        CubeCount::Static(numbers.div_ceil(UNITS) as u32, 1, 1),
        CubeDim::new_1d(UNITS as u32),
        argument(weight)?,
        argument(gradient)?,
        argument(mean)?,
        argument(square)?,
        argument(new_weight)?,
        argument(new_mean)?,
        argument(new_square)?,
        factor as f32,
        rule.beta_1 as f32,
        (1.0 - rule.beta_1) as f32,
        rule.beta_2 as f32,
        (1.0 - rule.beta_2) as f32,
        rule.root_correction_2 as f32,
        rule.eps as f32,
        rule.rate as f32,
        rule.kept as f32,
    );
    Some(made)
}

/// The sum of the squares of all numbers of all tensors; `None` when there are none, or one of them
/// is not f32 on a GPU. One transfer from the device.
pub(super) fn sum_of_squares<'a>(tensors: impl ExactSizeIterator<Item = &'a Tensor<1>>) -> Option<f64> {
    let mut sums: Option<Tensor<1>> = None;
    let count = tensors.len();
    for (index, tensor) in tensors.enumerate() {
        let sums = sums.get_or_insert_with(|| Tensor::empty([count * SUMS], (&tensor.device(), DType::F32)));
        squares_kernel::launch(
            &primitive(tensor)?.client,
            CubeCount::Static(SUMS as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            argument(tensor)?,
            argument(sums)?,
            index * SUMS,
        );
    }
    sums.map(|sums| sums.into_data().iter::<f64>().sum())
}

/// A tensor's memory, if it is f32 on a GPU.
fn primitive(tensor: &Tensor<1>) -> Option<CubeTensor> {
    (tensor.dtype() == DType::F32).then(|| tensor.clone().try_into_primitive::<Cube>().ok())?
}

/// Contiguous, as the kernels expect.
fn argument(tensor: &Tensor<1>) -> Option<BufferArg> {
    Some(into_contiguous(primitive(tensor)?).into_buffer_arg())
}

#[cube(launch)]
fn adam_w_kernel(
    weight: &[f32],
    gradient: &[f32],
    mean: &[f32],
    square: &[f32],
    new_weight: &mut [f32],
    new_mean: &mut [f32],
    new_square: &mut [f32],
    factor: f32,
    beta_1: f32,
    rest_1: f32,
    beta_2: f32,
    rest_2: f32,
    root_correction_2: f32,
    eps: f32,
    rate: f32,
    kept: f32,
) {
    let at = ABSOLUTE_POS;
    if at < weight.len() {
        let gradient = gradient[at] * factor;
        let mean = mean[at] * beta_1 + gradient * rest_1;
        let square = square[at] * beta_2 + gradient * gradient * rest_2;
        new_mean[at] = mean;
        new_square[at] = square;
        new_weight[at] = weight[at] * kept - mean / (square.sqrt() / root_correction_2 + eps) * rate;
    }
}

/// Sums in one order, whatever the GPU.
#[cube(launch)]
fn squares_kernel(numbers: &[f32], sums: &mut [f32], first: usize) {
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut sum = 0.0f32;
    let mut at = CUBE_POS_X as usize * comptime!(UNITS) + unit;
    while at < numbers.len() {
        let number = numbers[at];
        sum += number * number;
        at += comptime!(UNITS * SUMS);
    }
    shared[unit] = sum;
    sync_cube();
    if unit == 0 {
        let mut all = 0.0f32;
        for other in 0..comptime!(UNITS) {
            all += shared[other];
        }
        sums[first + CUBE_POS_X as usize] = all;
    }
}
