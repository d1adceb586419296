//! Matrix products and their backward pass: f32 in and out; in the precision bf16 computed by
//! tensor cores from bf16.
//!
//! As PyTorch's autocast: weights and their gradients stay f32. Knows nothing of layers.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;

use super::matrix::{Form, Matrix};
use super::operation::{Operand, record};
use crate::compute::Precision;

/// The products of one `x` and one to three weights, beside each other.
///
/// # Shapes
/// - x: `[rows, in]`
/// - weights: `[in, out]` each
/// - output: `[rows, out of all]`
pub(super) fn products(precision: Precision, x: &Tensor<2>, weights: &[Tensor<2>]) -> Option<Tensor<2>> {
    let x = Operand::new(x)?;
    let weights: Vec<Operand> = weights.iter().map(Operand::new).collect::<Option<_>>()?;
    let numbers: Vec<_> = weights.iter().map(|weight| weight.numbers.clone()).collect();
    let widths: Vec<usize> = numbers.iter().map(|weight| weight.shape()[1]).collect();
    let form = Form::of(&x.numbers.client, precision, widths.iter().copied().chain([x.numbers.shape()[1]]));
    let kept = Kept { x: Matrix::new(&[x.numbers], form), weights: Matrix::new(&numbers, form), widths };
    let found = kept.x.plain().product(&kept.weights.plain());
    let mut nodes = std::iter::once(x.node).chain(weights.into_iter().map(|weight| weight.node));
    let mut next = || nodes.next().flatten();
    match kept.widths.len() {
        1 => record(Products, [next(), next()], kept, found),
        2 => record(Products, [next(), next(), next()], kept, found),
        3 => record(Products, [next(), next(), next(), next()], kept, found),
        _ => None,
    }
}

#[derive(Debug)]
struct Products;

#[derive(Clone, Debug)]
struct Kept {
    /// `[rows, in]`.
    x: Matrix,
    /// `[in, out of all]`.
    weights: Matrix,
    widths: Vec<usize>,
}

impl<const N: usize> Backward<Cube, N> for Products {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let Kept { x, weights, widths } = ops.state;
        let by_out = Matrix::new(&[gradients.consume::<Cube>(&ops.node)], x.form);
        let mut parents = ops.parents.into_iter();
        if let Some(node) = parents.next().flatten() {
            gradients.register::<Cube>(node.id, by_out.plain().product(&weights.transposed()));
        }
        let mut first = 0;
        for (node, width) in parents.zip(widths) {
            if let Some(node) = node {
                gradients.register::<Cube>(node.id, x.transposed().product(&by_out.columns(first..first + width)));
            }
            first += width;
        }
    }
}
