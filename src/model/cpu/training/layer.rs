//! One layer of the transformer in training, and the way back through it. Knows nothing of the other layers.

use rayon::prelude::*;

use super::attention::{self, TrainedAttention};
use super::linear::{Linear, Norm};
use super::parameter::CpuGradients;
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::kernels;
use crate::model::{Layer, ModelError};

/// Numbers that one thread works on at a time.
const PIECE: usize = 1 << 13;

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

/// What the way back needs beside the layer's input.
#[derive(Debug)]
pub(super) struct Kept {
    attention: attention::Kept,
    /// The residual stream between attention and MLP: `[tokens, hidden_size]`.
    middle: Vec<f32>,
    /// `[tokens, intermediate_size]`.
    gates: Vec<f32>,
    ups: Vec<f32>,
}

impl TrainedLayer {
    pub(super) fn of(layer: &Layer, weights: &CpuWeights, index: usize) -> Result<Self, ModelError> {
        let name = |field: &str| format!("model.layers.{index}.{field}");
        let number = index as u64 * PROJECTIONS;
        Ok(Self {
            input_norm: Norm::of(&layer.input_layernorm, weights, &name("input_layernorm"))?,
            attention: TrainedAttention::of(&layer.self_attn, weights, &name("self_attn"), number)?,
            mlp_norm: Norm::of(&layer.post_attention_layernorm, weights, &name("post_attention_layernorm"))?,
            gates: Linear::of(&layer.mlp.gate_proj, weights, &name("mlp.gate_proj"), number + 4)?,
            ups: Linear::of(&layer.mlp.up_proj, weights, &name("mlp.up_proj"), number + 5)?,
            down: Linear::of(&layer.mlp.down_proj, weights, &name("mlp.down_proj"), number + 6)?,
        })
    }

    /// The residual stream after the layer.
    ///
    /// # Shapes
    /// - x, output: `[tokens, hidden_size]`
    pub(super) fn forward(&self, x: &[f32], tokens: &Tokens, angles: &[f32]) -> (Vec<f32>, Kept) {
        let mut middle = kernels::copied(x);
        let attention = self.attention.forward(&self.input_norm.forward(x), tokens, angles, &mut middle);
        let normed = self.mlp_norm.forward(&middle);
        let (gates, ups) = (self.gates.forward(&normed, tokens), self.ups.forward(&normed, tokens));
        drop(normed);
        let mut out = kernels::copied(&middle);
        self.down.add(&activated(&gates, &ups), tokens, &mut out);
        (out, Kept { attention, middle, gates, ups })
    }

    /// Turns the derivatives by the output into those by the input `x`, and adds to the gradients.
    ///
    /// # Shapes
    /// - x, by: `[tokens, hidden_size]`
    pub(super) fn backward(&self, kept: Kept, x: &[f32], tokens: &Tokens, angles: &[f32], by: &mut [f32], gradients: &mut CpuGradients) {
        let Kept { attention, middle, mut gates, mut ups } = kept;
        let mut by_activated = kernels::zeros(gates.len());
        self.down.backward(&activated(&gates, &ups), tokens, by, &mut by_activated, gradients);
        let pieces = gates.par_chunks_mut(PIECE).zip(ups.par_chunks_mut(PIECE)).zip(by_activated.par_chunks(PIECE));
        pieces.for_each(|((gates, ups), by_activated)| kernels::gate_backward(gates, ups, by_activated));
        drop(by_activated);
        let normed = self.mlp_norm.forward(&middle);
        let mut by_normed = kernels::zeros(x.len());
        self.gates.backward(&normed, tokens, &gates, &mut by_normed, gradients);
        self.ups.backward(&normed, tokens, &ups, &mut by_normed, gradients);
        self.mlp_norm.backward(&middle, &by_normed, by, gradients);

        let normed = self.input_norm.forward(x);
        by_normed.fill(0.0);
        self.attention.backward(attention, &normed, tokens, angles, by, &mut by_normed, gradients);
        self.input_norm.backward(x, &by_normed, by, gradients);
    }
}

fn activated(gates: &[f32], ups: &[f32]) -> Vec<f32> {
    let mut out = kernels::zeros(gates.len());
    let pieces = gates.par_chunks(PIECE).zip(ups.par_chunks(PIECE)).zip(out.par_chunks_mut(PIECE));
    pieces.for_each(|((gates, ups), out)| kernels::gate(gates, ups, out));
    out
}
