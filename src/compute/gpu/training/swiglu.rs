//! SwiGLU and its backward pass. Knows nothing of projections.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, unary};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::F32;
use super::operation::{Operand, empty, handle, record};
use crate::compute::gpu::kernels::{self, UNITS};

/// `silu(gate) · up`.
///
/// # Shapes
/// - gate_up: `[rows, 2 · width]`
/// - output: `[rows, width]`
pub(super) fn swiglu(gate_up: &Tensor<2>) -> Option<Tensor<2>> {
    let operand = Operand::new(gate_up)?;
    let gate_up = operand.contiguous();
    let [rows, width] = [gate_up.shape()[0], gate_up.shape()[1] / 2];
    let out = empty([rows, width], &gate_up);
    kernels::swiglu::launch(
        &gate_up.client,
        cubes(rows, width),
        CubeDim::new_1d(UNITS as u32),
        handle(&gate_up).into_arg(),
        handle(&gate_up).into_arg(),
        handle(&out).into_arg(),
        width,
        false,
        false,
        F32,
    );
    record(SwiGlu, [operand.node], gate_up, out)
}

#[derive(Debug)]
struct SwiGlu;

impl Backward<Cube, 1> for SwiGlu {
    type State = CubeTensor;

    fn backward(self, ops: Ops<CubeTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gate_up = ops.state;
        let [rows, width] = [gate_up.shape()[0], gate_up.shape()[1] / 2];
        unary::<Cube, _>(ops.parents, ops.node, gradients, |by_out| {
            let (by_out, by_gate_up) = (into_contiguous(by_out), empty([rows, 2 * width], &gate_up));
            kernels::swiglu_back::launch(
                &gate_up.client,
                cubes(rows, width),
                CubeDim::new_1d(UNITS as u32),
                handle(&gate_up).into_arg(),
                handle(&by_out).into_arg(),
                handle(&by_gate_up).into_arg(),
                width,
            );
            by_gate_up
        });
    }
}

fn cubes(rows: usize, width: usize) -> CubeCount {
    CubeCount::Static(rows as u32, width.div_ceil(UNITS) as u32, 1)
}
