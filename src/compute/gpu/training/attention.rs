//! Attention among the tokens of each row, and its backward pass. Knows nothing of projections.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, unary};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::TensorHandle;

use super::operation::{Operand, empty, handle, numbers, record};
use super::{F32, I32};
use crate::compute::gpu::decoder::launch;
use crate::compute::gpu::kernels::{self, HeadParts, PLACE, UNITS};
use crate::compute::reference::attention::AttentionShape;

/// Rows of one length, each from its first position on.
pub(super) struct Rows {
    length: usize,
    /// `[rows · length, PLACE]`: a row has its keys where it stands itself.
    places: TensorHandle,
    /// `[head_dim / 2]`, a position.
    angles: TensorHandle,
}

impl Rows {
    /// On the GPU where `beside` is.
    pub(super) fn new(beside: &Operand, [rows, length]: [usize; 2], frequencies: &[f32]) -> Self {
        let client = &beside.numbers.client;
        let place = |row: usize, position: usize| -> [i32; PLACE] { [0, position as i32, 0, 0, (row * length) as i32] };
        let places = (0..rows).flat_map(|row| (0..length).flat_map(move |position| place(row, position)));
        let places: Vec<u8> = places.flat_map(i32::to_le_bytes).collect();
        Self {
            length,
            places: TensorHandle::new_contiguous([rows * length, PLACE], client.create_from_slice(&places), I32),
            angles: numbers(frequencies, &beside.numbers),
        }
    }
}

/// Causal attention within each row.
///
/// # Shapes
/// - qkv: `[tokens, (heads + 2 · key_value_heads) · head_dim]`
/// - output: `[tokens, heads · head_dim]`
pub(super) fn attention(shape: AttentionShape, qkv: &Tensor<2>, rows: &Rows) -> Option<Tensor<2>> {
    let operand = Operand::new(qkv)?;
    let qkv = operand.contiguous();
    let tokens = qkv.shape()[0];
    // No row is longer: positions are counted in i32.
    let shape = AttentionShape { window: shape.window.min(i32::MAX as usize), ..shape };
    let queries = empty([tokens, shape.query_width()], &qkv);
    let [keys, values] = [(); 2].map(|()| empty([tokens, shape.key_width()], &qkv));
    let out = empty([tokens, shape.query_width()], &qkv);
    let normalizers = empty([tokens, shape.heads], &qkv);
    kernels::place_heads::launch(
        &qkv.client,
        CubeCount::Static(tokens as u32, (shape.heads + 2 * shape.key_value_heads) as u32, 1),
        CubeDim::new_1d(shape.head_dim as u32 / 2),
        handle(&qkv).into_arg(),
        rows.angles.clone().into_arg(),
        rows.angles.clone().into_arg(),
        rows.angles.clone().into_arg(),
        rows.places.clone().into_arg(),
        handle(&queries).into_arg(),
        handle(&keys).into_arg(),
        handle(&values).into_arg(),
        shape.heads,
        shape.key_value_heads,
        0.0,
        shape.head_dim,
        HeadParts { bias: false, norms: false, rotary: shape.rotary },
        F32,
    );
    let cut = kernels::Attention { keeps: true, ..launch::attention(&qkv.client, shape, false) };
    let [found, sums] = [handle(&out), handle(&normalizers)];
    launch::attend(
        &qkv.client,
        cut,
        shape.window,
        [&handle(&queries), &handle(&keys), &handle(&values), &rows.places],
        [&found, &sums],
        F32,
    );
    let kept = Kept { shape, length: rows.length, angles: rows.angles.clone(), queries, keys, values, out: out.clone(), normalizers };
    record(Attention, [operand.node], kept, out)
}

#[derive(Debug)]
struct Attention;

#[derive(Clone)]
struct Kept {
    shape: AttentionShape,
    length: usize,
    angles: TensorHandle,
    queries: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    out: CubeTensor,
    normalizers: CubeTensor,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kept").field("shape", &self.shape).field("length", &self.length).finish_non_exhaustive()
    }
}

impl Backward<Cube, 1> for Attention {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let kept = ops.state;
        unary::<Cube, _>(ops.parents, ops.node, gradients, |by_out| kept.backward(&into_contiguous(by_out)));
    }
}

impl Kept {
    /// The derivatives by queries, keys and values, beside each other.
    fn backward(self, by_out: &CubeTensor) -> CubeTensor {
        let Self { shape, length, angles, queries, keys, values, out, normalizers } = self;
        let client = &queries.client;
        let tokens = queries.shape()[0];
        let by_qkv = empty([tokens, shape.qkv_width()], &queries);
        let deltas = empty([tokens, shape.heads], &queries);
        let cut = kernels::Attention { vector: 1, ..launch::attention(client, shape, false) };
        let scale = (shape.head_dim as f64).powf(-0.5) as f32;
        kernels::attend_back_to_queries::launch(
            client,
            CubeCount::Static(tokens as u32, (cut.heads / cut.together) as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            handle(&queries).into_arg(),
            handle(&keys).into_arg(),
            handle(&values).into_arg(),
            handle(&out).into_arg(),
            handle(&normalizers).into_arg(),
            handle(by_out).into_arg(),
            angles.clone().into_arg(),
            handle(&deltas).into_arg(),
            handle(&by_qkv).into_arg(),
            length,
            shape.window,
            scale,
            cut,
            shape.rotary,
        );
        kernels::attend_back_to_keys::launch(
            client,
            CubeCount::Static(tokens as u32, cut.key_value_heads as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            handle(&queries).into_arg(),
            handle(&keys).into_arg(),
            handle(&values).into_arg(),
            handle(&normalizers).into_arg(),
            handle(by_out).into_arg(),
            angles.into_arg(),
            handle(&deltas).into_arg(),
            handle(&by_qkv).into_arg(),
            length,
            shape.window,
            scale,
            cut,
            shape.rotary,
        );
        by_qkv
    }
}
