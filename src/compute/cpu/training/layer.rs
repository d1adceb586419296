//! One layer of the transformer in training, and its backward pass. Knows nothing of the other
//! layers.

use super::attention::{self, TrainedAttention};
use super::linear::Norm;
use super::mlp::{self, TrainedMlp};
use super::parameter::CpuGradients;
use super::routed::{self, TrainedRoutedMlp};
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::compute::Layer;
use crate::compute::cpu::kernels::Buffer;
use crate::model::ModelError;

/// Projections of an attention.
const ATTENTION_PROJECTIONS: u64 = 4;

/// A layer's parameters.
#[derive(Debug)]
pub(super) struct TrainedLayer {
    input_norm: Norm,
    attention: TrainedAttention,
    mlp_norm: Norm,
    feed_forward: FeedForward,
}

#[derive(Debug)]
enum FeedForward {
    Dense(TrainedMlp),
    Routed(TrainedRoutedMlp),
}

/// The inputs of the backward pass beside the layer's input.
#[derive(Debug)]
pub(super) struct Kept {
    attention: attention::Kept,
    /// The residual stream between attention and MLP: `[tokens, hidden_size]`.
    middle: Buffer,
    mlp: KeptMlp,
}

#[derive(Debug)]
enum KeptMlp {
    Dense(mlp::Kept),
    Routed(routed::Kept),
}

impl TrainedLayer {
    /// How many projections a layer has.
    pub(super) fn projections(layer: &Layer) -> u64 {
        let experts = layer.routed.as_ref().map_or(0, |routed| routed.experts.len());
        ATTENTION_PROJECTIONS + mlp::PROJECTIONS * (experts + usize::from(layer.mlp.is_some())) as u64
    }

    /// `number` is the number of its first projection in the model.
    pub(super) fn new(layer: &Layer, weights: &CpuWeights, index: usize, number: u64) -> Result<Self, ModelError> {
        let name = |field: &str| format!("model.layers.{index}.{field}");
        let first = number + ATTENTION_PROJECTIONS;
        let feed_forward = match (&layer.mlp, &layer.routed) {
            (Some(mlp), _) => FeedForward::Dense(TrainedMlp::new(mlp, weights, &name("mlp"), first)?),
            (None, Some(routed)) => FeedForward::Routed(TrainedRoutedMlp::new(routed, weights, &name("routed"), first)?),
            (None, None) => {
                return Err(ModelError::Device(format!("compute::cpu::training::layer: layer {index} without MLP and experts")));
            }
        };
        Ok(Self {
            input_norm: Norm::new(&layer.input_layernorm, weights, &name("input_layernorm"))?,
            attention: TrainedAttention::new(&layer.self_attn, weights, &name("self_attn"), number)?,
            mlp_norm: Norm::new(&layer.post_attention_layernorm, weights, &name("post_attention_layernorm"))?,
            feed_forward,
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
        let mut out = tokens.memory.copied(&middle);
        let mlp = match &self.feed_forward {
            FeedForward::Dense(dense) => KeptMlp::Dense(dense.add(&normed, None, tokens, &mut out)),
            FeedForward::Routed(routed) => KeptMlp::Routed(routed.add(&normed, tokens, &mut out)),
        };
        (out, Kept { attention, middle, mlp })
    }

    /// Turns the derivatives by the output into those by the input `x`, and adds to the gradients.
    ///
    /// # Shapes
    /// - x, by: `[tokens, hidden_size]`
    pub(super) fn backward(&self, kept: Kept, x: &[f32], tokens: &Tokens, angles: &[f32], by: &mut [f32], gradients: &mut CpuGradients) {
        let Kept { attention, middle, mlp } = kept;
        let normed = self.mlp_norm.forward(&middle, tokens.memory);
        let by_normed = match (&self.feed_forward, mlp) {
            (FeedForward::Dense(dense), KeptMlp::Dense(kept)) => dense.backward(kept, &normed, None, tokens, by, gradients).0,
            (FeedForward::Routed(routed), KeptMlp::Routed(kept)) => routed.backward(kept, &normed, tokens, by, gradients),
            // A layer is given back what it kept itself.
            _ => {
                debug_assert!(false, "an MLP was given what experts keep, or the other way round");
                tokens.memory.zeros(x.len())
            }
        };
        self.mlp_norm.backward(&middle, &by_normed, by, gradients);

        let normed = self.input_norm.forward(x, tokens.memory);
        let by_normed = self.attention.backward(attention, &normed, tokens, angles, by, gradients);
        self.input_norm.backward(x, &by_normed, by, gradients);
    }
}
