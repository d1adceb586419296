//! One layer of the transformer in training, and its backward pass. Knows nothing of the other
//! layers.

use super::attention::{self, TrainedAttention};
use super::linear::{self, Linear, Norm};
use super::parameter::CpuGradients;
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::compute::Layer;
use crate::compute::cpu::kernels::{self, Buffer, Memory, PIECE};
use crate::model::ModelError;

/// Projections of a layer.
const PROJECTIONS: u64 = 7;

/// A layer's parameters.
#[derive(Debug)]
pub(super) struct TrainedLayer {
    input_norm: Norm,
    attention: TrainedAttention,
    mlp_norm: Norm,
    gates: Linear,
    ups: Linear,
    down: Linear,
}

/// The inputs of the backward pass beside the layer's input.
#[derive(Debug)]
pub(super) struct Kept {
    attention: attention::Kept,
    /// The residual stream between attention and MLP: `[tokens, hidden_size]`.
    middle: Buffer,
    /// `[tokens, intermediate_size]`.
    gates: Buffer,
    ups: Buffer,
}

impl TrainedLayer {
    pub(super) fn new(layer: &Layer, weights: &CpuWeights, index: usize) -> Result<Self, ModelError> {
        let name = |field: &str| format!("model.layers.{index}.{field}");
        let number = index as u64 * PROJECTIONS;
        Ok(Self {
            input_norm: Norm::new(&layer.input_layernorm, weights, &name("input_layernorm"))?,
            attention: TrainedAttention::new(&layer.self_attn, weights, &name("self_attn"), number)?,
            mlp_norm: Norm::new(&layer.post_attention_layernorm, weights, &name("post_attention_layernorm"))?,
            gates: Linear::new(&layer.mlp.gate_proj, weights, &name("mlp.gate_proj"), number + 4)?,
            ups: Linear::new(&layer.mlp.up_proj, weights, &name("mlp.up_proj"), number + 5)?,
            down: Linear::new(&layer.mlp.down_proj, weights, &name("mlp.down_proj"), number + 6)?,
        })
    }

    /// The residual stream after the layer.
    ///
    /// # Shapes
    /// - x, output: `[tokens, hidden_size]`
    pub(super) fn forward(&self, x: &[f32], tokens: &Tokens, angles: &[f32]) -> (Buffer, Kept) {
        let mut middle = tokens.memory.copied(x);
        let attention = self.attention.forward(&self.input_norm.forward(x, tokens.memory), tokens, angles, &mut middle);
        let normed = self.mlp_norm.forward(&middle, tokens.memory);
        let [gates, ups] = linear::forward([&self.gates, &self.ups], &normed, tokens);
        drop(normed);
        let mut out = tokens.memory.copied(&middle);
        self.down.add(&activated(&gates, &ups, tokens.memory), tokens, &mut out);
        (out, Kept { attention, middle, gates, ups })
    }

    /// Turns the derivatives by the output into those by the input `x`, and adds to the gradients.
    ///
    /// # Shapes
    /// - x, by: `[tokens, hidden_size]`
    pub(super) fn backward(&self, kept: Kept, x: &[f32], tokens: &Tokens, angles: &[f32], by: &mut [f32], gradients: &mut CpuGradients) {
        let Kept { attention, middle, mut gates, mut ups } = kept;
        let by_activated = linear::backward([&self.down], &activated(&gates, &ups, tokens.memory), tokens, [by], gradients);
        let pieces = gates.chunks_mut(PIECE).zip(ups.chunks_mut(PIECE)).zip(by_activated.chunks(PIECE));
        kernels::each(pieces, |((gates, ups), by_activated)| kernels::gate_backward(gates, ups, by_activated));
        drop(by_activated);
        let normed = self.mlp_norm.forward(&middle, tokens.memory);
        let by_normed = linear::backward([&self.gates, &self.ups], &normed, tokens, [&gates, &ups], gradients);
        self.mlp_norm.backward(&middle, &by_normed, by, gradients);

        let normed = self.input_norm.forward(x, tokens.memory);
        let by_normed = self.attention.backward(attention, &normed, tokens, angles, by, gradients);
        self.input_norm.backward(x, &by_normed, by, gradients);
    }
}

fn activated(gates: &[f32], ups: &[f32], memory: &Memory) -> Buffer {
    let mut out = memory.any(gates.len());
    let pieces = gates.chunks(PIECE).zip(ups.chunks(PIECE)).zip(out.chunks_mut(PIECE));
    kernels::each(pieces, |((gates, ups), out)| kernels::gate(gates, ups, out));
    out
}
