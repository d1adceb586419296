//! A norm and its backward pass. Knows nothing of where it stands.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::F32;
use super::operation::{Operand, empty, handle, record};
use crate::compute::gpu::kernels::{self, COLUMNS, Normed, ROWS_AT_ONCE, UNITS};

/// # Shapes
/// - x, output: `[rows, width]`
pub(super) fn norm(norm: &crate::compute::Norm, x: &Tensor<2>) -> Option<Tensor<2>> {
    let [rows, width] = x.dims();
    let (x, weight) = (Operand::new(x)?, Operand::new(&norm.factors())?);
    let kept = Kept { x: x.contiguous(), weight: weight.contiguous(), epsilon: norm.epsilon() };
    let out = empty([rows, width], &kept.x);
    kernels::norm::launch(
        &kept.x.client,
        CubeCount::Static(rows as u32, 1, 1),
        CubeDim::new_1d(UNITS as u32),
        handle(&kept.x).into_arg(),
        handle(&kept.x).into_arg(),
        handle(&kept.x).into_arg(),
        handle(&kept.weight).into_arg(),
        handle(&out).into_arg(),
        width,
        kept.epsilon,
        Normed::Rows,
        false,
        F32,
    );
    record(Norm, [x.node, weight.node], kept, out)
}

#[derive(Debug)]
struct Norm;

#[derive(Clone, Debug)]
struct Kept {
    x: CubeTensor,
    weight: CubeTensor,
    epsilon: f32,
}

impl Backward<Cube, 2> for Norm {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let Kept { x, weight, epsilon } = ops.state;
        let by_out = into_contiguous(gradients.consume::<Cube>(&ops.node));
        let [rows, width] = [x.shape()[0], x.shape()[1]];
        let (by_x, scales) = (empty([rows, width], &x), empty([rows], &x));
        let [x_node, weight_node] = ops.parents;
        kernels::norm_back::launch(
            &x.client,
            CubeCount::Static(rows as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            handle(&x).into_arg(),
            handle(&weight).into_arg(),
            handle(&by_out).into_arg(),
            handle(&by_x).into_arg(),
            handle(&scales).into_arg(),
            width,
            epsilon,
        );
        if let Some(node) = x_node {
            gradients.register::<Cube>(node.id, by_x);
        }
        if let Some(node) = weight_node {
            let by_weight = empty([width], &x);
            kernels::norm_weight_back::launch(
                &x.client,
                CubeCount::Static(width.div_ceil(COLUMNS) as u32, 1, 1),
                CubeDim::new_2d(COLUMNS as u32, ROWS_AT_ONCE as u32),
                handle(&x).into_arg(),
                handle(&by_out).into_arg(),
                handle(&scales).into_arg(),
                handle(&by_weight).into_arg(),
                rows,
                width,
            );
            gradients.register::<Cube>(node.id, by_weight);
        }
    }
}
