//! Rows of a table, such as an embedding's, and the backward pass to it. Knows nothing of their
//! meaning.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, unary};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, FloatDType, TensorMetadata};
use burn::tensor::{Int, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::TensorHandle;

use super::I32;
use super::operation::{Operand, handle, integers, record};
use crate::compute::gpu::kernels::{self, UNITS};

/// The rows of these numbers.
///
/// # Shapes
/// - table: `[any, width]`
/// - numbers: `[rows]`
/// - output: `[rows, width]`
pub(super) fn select(table: &Tensor<2>, numbers: &Tensor<1, Int>) -> Option<Tensor<2>> {
    let table = Operand::new(table)?;
    let numbers = integers(numbers)?;
    let found = Cube::float_select(table.numbers.clone(), 0, numbers.clone());
    record(Select, [table.node], (numbers, table.numbers.shape()[0]), found)
}

#[derive(Debug)]
struct Select;

impl Backward<Cube, 1> for Select {
    /// The numbers, and how many rows there are.
    type State = (CubeTensor, usize);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (numbers, all) = ops.state;
        unary::<Cube, _>(ops.parents, ops.node, gradients, |by_out| {
            let by_out = into_contiguous(by_out);
            let [rows, width] = [by_out.shape()[0], by_out.shape()[1]];
            let by_table = Cube::float_zeros([all, width].into(), &by_out.device, FloatDType::F32);
            let client = &by_out.client;
            let links = TensorHandle::new_contiguous([2, rows], client.empty(2 * rows * I32.size()), I32);
            let (cubes, units) = (CubeCount::Static(rows as u32, 1, 1), CubeDim::new_1d(UNITS as u32));
            kernels::link_rows::launch(client, cubes.clone(), units, handle(&numbers).into_arg(), links.clone().into_arg(), rows);
            kernels::select_back::launch(
                client,
                cubes,
                units,
                handle(&numbers).into_arg(),
                links.into_arg(),
                handle(&by_out).into_arg(),
                handle(&by_table).into_arg(),
                rows,
                width,
            );
            by_table
        });
    }
}
