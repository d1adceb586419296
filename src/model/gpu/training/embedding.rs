//! An embedding and the way back to it. Knows nothing of what tokens mean.

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
use crate::model::gpu::kernels::{self, UNITS};

/// # Shapes
/// - table: `[vocab_size, width]`
/// - tokens: `[tokens]`
/// - output: `[tokens, width]`
pub(super) fn embedding(table: &Tensor<2>, tokens: &Tensor<1, Int>) -> Option<Tensor<2>> {
    let table = Operand::new(table)?;
    let tokens = integers(tokens)?;
    let found = Cube::float_select(table.numbers.clone(), 0, tokens.clone());
    record(Embedding, [table.node], (tokens, table.numbers.shape()[0]), found)
}

#[derive(Debug)]
struct Embedding;

impl Backward<Cube, 1> for Embedding {
    /// The tokens, and how many there are in the vocabulary.
    type State = (CubeTensor, usize);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (tokens, vocab_size) = ops.state;
        unary::<Cube, _>(ops.parents, ops.node, gradients, |by_out| {
            let by_out = into_contiguous(by_out);
            let [rows, width] = [by_out.shape()[0], by_out.shape()[1]];
            let by_table = Cube::float_zeros([vocab_size, width].into(), &by_out.device, FloatDType::F32);
            let client = &by_out.client;
            let links = TensorHandle::new_contiguous([2, rows], client.empty(2 * rows * I32.size()), I32);
            let (cubes, units) = (CubeCount::Static(rows as u32, 1, 1), CubeDim::new_1d(UNITS as u32));
            kernels::link_tokens::launch(client, cubes.clone(), units, handle(&tokens).into_arg(), links.clone().into_arg(), rows);
            kernels::embed_back::launch(
                client,
                cubes,
                units,
                handle(&tokens).into_arg(),
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
