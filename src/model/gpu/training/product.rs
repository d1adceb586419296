//! Matrix products as training wants them: f32 in and out, computed by tensor cores from bf16, with a way back of the same kind.
//!
//! What PyTorch's autocast does: weights, and gradients of them, stay f32. Knows nothing of layers.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, FloatDType, TensorMetadata};
use burn::tensor::{Slice, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;
use cubek_matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek_matmul::launch::launch_ref;
use cubek_matmul::multi_level;
use cubek_matmul::strategy::Strategy;
use cubek_std::InputBinding;

use super::operation::{Operand, handle, record};
use super::{BF16, F32};
use crate::model::gpu::kernels::{self, UNITS};

/// `x · weight` from numbers that are shortened to bf16, if the GPU knows that; `None` when they are not f32 on a GPU, both with autodiff or both without.
///
/// # Shapes
/// - x: `[rows, in]`
/// - weight: `[in, out]`
/// - output: `[rows, out]`
pub fn product(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    products(x, std::slice::from_ref(weight))
}

/// One to three [`product`]s of one `x`, beside each other.
///
/// # Shapes
/// - x: `[rows, in]`
/// - weights: `[in, out]` each
/// - output: `[rows, out of all]`
pub(super) fn products(x: &Tensor<2>, weights: &[Tensor<2>]) -> Option<Tensor<2>> {
    let x = Operand::new(x)?;
    let weights: Vec<Operand> = weights.iter().map(Operand::new).collect::<Option<_>>()?;
    let element = element(&x.numbers.client);
    let widths = weights.iter().map(|weight| weight.numbers.shape()[1]).collect();
    let kept = Kept { x: shorten(x.numbers, element), weights: beside(&weights, element)?, widths };
    let found = multiply(kept.x.clone(), kept.weights.clone());
    let mut nodes = std::iter::once(x.node).chain(weights.into_iter().map(|weight| weight.node));
    let mut next = || nodes.next().flatten();
    match kept.widths.len() {
        1 => record_products::<2>([(); 2].map(|()| next()), kept, found),
        2 => record_products::<3>([(); 3].map(|()| next()), kept, found),
        3 => record_products::<4>([(); 4].map(|()| next()), kept, found),
        _ => None,
    }
}

fn record_products<const N: usize>(nodes: [Option<NodeGuard>; N], kept: Kept, found: CubeTensor) -> Option<Tensor<2>> {
    record(Products, nodes, kept, found)
}

#[derive(Debug)]
struct Products;

#[derive(Clone, Debug)]
struct Kept {
    /// `[rows, in]`, shortened.
    x: CubeTensor,
    /// `[in, out of all]`, shortened.
    weights: CubeTensor,
    widths: Vec<usize>,
}

impl<const N: usize> Backward<Cube, N> for Products {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let Kept { x, weights, widths } = ops.state;
        let gradient = gradients.consume::<Cube>(&ops.node);
        let element = element(&gradient.client);
        let gradient = shorten(gradient, element);
        let mut parents = ops.parents.into_iter();
        if let Some(node) = parents.next().flatten() {
            gradients.register::<Cube>(node.id, multiply(gradient.clone(), Cube::float_transpose(weights)));
        }
        let turned = Cube::float_transpose(x);
        let mut first = 0;
        for (node, width) in parents.zip(widths) {
            if let Some(node) = node {
                let columns = [Slice::full(), Slice::from(first..first + width)];
                let of_weight = Cube::float_slice(gradient.clone(), &columns);
                gradients.register::<Cube>(node.id, multiply(turned.clone(), of_weight));
            }
            first += width;
        }
    }
}

/// What products are computed from.
fn element(client: &Client) -> ElemType {
    if client.properties().supports_type(BF16) { BF16 } else { F32 }
}

fn shorten(tensor: CubeTensor, element: ElemType) -> CubeTensor {
    Cube::float_cast(tensor, if element == BF16 { FloatDType::BF16 } else { FloatDType::F32 })
}

/// Matrices of as many rows beside each other, shortened.
fn beside(matrices: &[Operand], element: ElemType) -> Option<CubeTensor> {
    let first = &matrices.first()?.numbers;
    if matrices.len() == 1 {
        return Some(shorten(first.clone(), element));
    }
    let [rows, width] = [first.shape()[0], matrices.iter().map(|matrix| matrix.numbers.shape()[1]).sum()];
    let out = Cube::float_empty([rows, width].into(), &first.device, if element == BF16 { FloatDType::BF16 } else { FloatDType::F32 });
    let mut before = 0;
    for matrix in matrices {
        let matrix = matrix.contiguous();
        let columns = matrix.shape()[1];
        // All of them begin and end with whole vectors.
        let vector =
            [4, 2].into_iter().find(|vector| [width, columns, before].iter().all(|number| number.is_multiple_of(*vector))).unwrap_or(1);
        kernels::put_columns::launch(
            &matrix.client,
            CubeCount::Static((rows * columns / vector).div_ceil(UNITS) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            vector,
            handle(&matrix).into_arg(),
            handle(&out).into_arg(),
            rows * columns / vector,
            columns / vector,
            before / vector,
            width / vector,
            element,
        );
        before += columns;
    }
    Some(out)
}

/// The product of two matrices of one element type, in f32.
fn multiply(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    let shape = [left.shape()[0], right.shape()[1]];
    if element(&left.client) == BF16 {
        let out = Cube::float_empty(shape.into(), &left.device, FloatDType::F32);
        let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: BF16, rhs: BF16, out: F32 });
        let [first, second] = [&left, &right].map(|tensor| InputBinding::new(tensor.clone().binding(), BF16));
        let strategy = Strategy::MultiLevel(multi_level::Strategy::DoubleCyclicMma(Default::default()));
        // There are shapes and GPUs that it is not for.
        if launch_ref(&strategy, &out.client, first, second, out.clone().binding(), &mut elements).is_ok() {
            return out;
        }
    }
    Cube::float_cast(Cube::float_matmul(left, right), FloatDType::F32)
}
