//! Training on a GPU: the transformer's forward pass in operations of our own, each with its
//! backward pass. Autodiff links these.
//!
//! Computes what [`Decoder::forward`] computes of burn's operations, which would be some dozens
//! where one of these is one or two launches; the GPU is faster than launches come. In the
//! precision bf16, products are of bf16 where the GPU knows it, as under PyTorch's autocast:
//! weights, gradients and what is between the products are f32. Knows nothing of losses or
//! optimizers.

mod attention;
mod head;
mod matrix;
mod norm;
mod operation;
mod product;
mod select;
mod swiglu;

use burn::tensor::{Int, Tensor};

use super::{BF16, F32, I32};
use crate::compute::{Decoder, Layer, Precision, Projection};
use attention::Rows;
use operation::Operand;

pub use head::ScoredTokens;

/// Hidden states after the last norm, of rows without padding at their start; `None` when the model
/// is not f32 on a GPU, has routed experts, or its adapter has magnitudes.
///
/// # Shapes
/// - tokens: `[rows, length]`
/// - output: `[rows, length, hidden_size]`
pub fn hidden(decoder: &Decoder, tokens: &Tensor<2, Int>) -> Option<Tensor<3>> {
    let [rows, length] = tokens.dims();
    let table = decoder.embed_tokens.weight.val();
    let width = table.dims()[1];
    let flat: Tensor<1, Int> = tokens.clone().flatten(0, 1);
    let mut x = decoder.without_padding_gradient(select::select(&table, &flat)?, flat);
    // Models with other norms or rotations are refused before a run.
    let rows_of = Rows::new(&Operand::new(&x)?, [rows, length], &decoder.ropes().first()?.frequencies);
    for layer in &decoder.layers {
        let normed = norm::norm(layer.input_layernorm.as_ref()?, &x)?;
        x = x + attended(layer, normed, &rows_of)?;
        let normed = norm::norm(&layer.post_attention_layernorm, &x)?;
        x = x + transformed(layer, normed)?;
    }
    Some(norm::norm(&decoder.norm, &x)?.reshape([rows, length, width]))
}

/// # Shapes
/// - x, output: `[tokens, hidden_size]`
fn attended(layer: &Layer, x: Tensor<2>, rows: &Rows) -> Option<Tensor<2>> {
    let attention = &layer.self_attn;
    let shape = attention.shape();
    let mut qkv = fused(&attention.inputs(), &x)?;
    if let (Some(query_norm), Some(key_norm)) = (&attention.q_norm, &attention.k_norm) {
        let tokens = qkv.dims()[0];
        let [queries, keys] = [shape.query_width(), shape.key_width()];
        let of_heads = |norm, first: usize, width: usize| -> Option<Tensor<2>> {
            let heads = qkv.clone().narrow(1, first, width).reshape([tokens * width / shape.head_dim, shape.head_dim]);
            Some(norm::norm(norm, &heads)?.reshape([tokens, width]))
        };
        let parts = [of_heads(query_norm, 0, queries)?, of_heads(key_norm, queries, keys)?, qkv.clone().narrow(1, queries + keys, keys)];
        qkv = Tensor::cat(parts.to_vec(), 1);
    }
    fused(&[&attention.o_proj], &attention::attention(shape, &qkv, rows)?)
}

/// # Shapes
/// - x, output: `[tokens, hidden_size]`
fn transformed(layer: &Layer, x: Tensor<2>) -> Option<Tensor<2>> {
    let projections = layer.mlp_projections()?;
    let gate_up = fused(&projections.gates_ups, &x)?;
    fused(&[projections.down], &swiglu::swiglu(&gate_up)?)
}

/// Projections of one input, beside each other.
///
/// # Shapes
/// - x: `[tokens, in]`
/// - output: `[tokens, out of all]`
fn fused(projections: &[&Projection], x: &Tensor<2>) -> Option<Tensor<2>> {
    // Magnitudes are computed by the reference.
    if projections.iter().any(|projection| projection.adapter.as_ref().is_some_and(|adapter| adapter.magnitude.is_some())) {
        return None;
    }
    let weights: Vec<Tensor<2>> = projections.iter().map(|projection| projection.weight.val()).collect();
    let widths: Vec<usize> = weights.iter().map(|weight| weight.dims()[1]).collect();
    let precision = projections.first()?.precision();
    let mut out = product::products(precision, x, &weights)?;
    if projections.iter().any(|projection| projection.bias.is_some()) {
        let bias = |(projection, width): (&&Projection, &usize)| match &projection.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([*width], &x.device()),
        };
        out = out + Tensor::cat(projections.iter().zip(&widths).map(bias).collect(), 0).unsqueeze();
    }
    if projections.iter().any(|projection| projection.adapter.is_some()) {
        let adapted = |(projection, width): (&&Projection, &usize)| match &projection.adapter {
            // Its products are small: they are f32 in both precisions.
            Some(adapter) => adapter.forward(Precision::F32, x.clone()),
            None => Tensor::zeros([x.dims()[0], *width], &x.device()),
        };
        out = out + Tensor::cat(projections.iter().zip(&widths).map(adapted).collect(), 1);
    }
    Some(out)
}
