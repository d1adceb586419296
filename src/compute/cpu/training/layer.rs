//! One layer of the transformer in training, and its backward pass. Knows nothing of the other
//! layers.

use super::attention::{self, TrainedAttention};
use super::linear::Norm;
use super::mlp::{self, TrainedMlp};
use super::parameter::CpuGradients;
use super::routed::{self, TrainedRoutedMlp};
use super::tokens::{Angles, Tokens};
use super::weights::CpuWeights;
use crate::compute::cpu::kernels::{self, Buffer, PIECE};
use crate::compute::reference::transformer::Norms;
use crate::compute::{Layer, Mlp};
use crate::model::ModelError;

/// A layer's parameters.
#[derive(Debug)]
pub(super) struct TrainedLayer {
    attention_norms: TrainedNorms,
    attention: TrainedAttention,
    mlp_norms: TrainedNorms,
    feed_forward: FeedForward,
    /// Which of the model's rotations it uses.
    rope: usize,
    residual_multiplier: f32,
}

#[derive(Debug)]
enum FeedForward {
    Dense(Box<TrainedMlp>),
    Routed(TrainedRoutedMlp),
}

/// The norms before and behind a part of a layer.
#[derive(Debug)]
struct TrainedNorms {
    before: Option<Norm>,
    behind: Option<Norm>,
}

/// The inputs of the backward pass beside the layer's input.
#[derive(Debug)]
pub(super) struct Kept {
    attention: attention::Kept,
    /// Before its norm, where there is a norm behind it: `[tokens, hidden_size]`.
    attended: Option<Buffer>,
    /// The residual stream between attention and MLP: `[tokens, hidden_size]`.
    middle: Buffer,
    mlp: KeptMlp,
    /// Before its norm, where there is a norm behind it: `[tokens, hidden_size]`.
    transformed: Option<Buffer>,
}

#[derive(Debug)]
enum KeptMlp {
    Dense(mlp::Kept),
    Routed(routed::Kept),
}

impl TrainedLayer {
    /// How many projections a layer has.
    pub(super) fn projections(layer: &Layer) -> u64 {
        let experts = layer.routed.iter().flat_map(|routed| &routed.experts).map(Mlp::projections);
        let of_mlps = layer.mlp_projections().into_iter().chain(experts).map(|mlp| mlp.count());
        of_attention(layer) + of_mlps.sum::<u64>()
    }

    /// `number` is the number of its first projection in the model.
    pub(super) fn new(layer: &Layer, weights: &CpuWeights, index: usize, number: u64) -> Result<Self, ModelError> {
        let name = |field: &str| format!("model.layers.{index}.{field}");
        let first = number + of_attention(layer);
        let feed_forward = match (layer.mlp_projections(), &layer.routed) {
            (Some(projections), _) => {
                let field = if layer.mlp.is_some() { "mlp" } else { "fused_mlp" };
                FeedForward::Dense(Box::new(TrainedMlp::new(&projections, weights, &name(field), first)?))
            }
            (None, Some(routed)) => FeedForward::Routed(TrainedRoutedMlp::new(routed, weights, &name("routed"), first)?),
            (None, None) => {
                return Err(ModelError::Device(format!("compute::cpu::training::layer: layer {index} without MLP and experts")));
            }
        };
        let named = |norm: Option<&crate::compute::Norm>, field: &str| norm.map(|norm| Norm::new(norm, weights, &name(field))).transpose();
        let Norms { before, behind } = layer.attention_norms();
        let attention_norms =
            TrainedNorms { before: named(before, "input_layernorm")?, behind: named(behind, "post_attention_layernorm")? };
        let Norms { before, behind } = layer.mlp_norms();
        let before_mlp = if behind.is_some() { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        Ok(Self {
            attention_norms,
            attention: TrainedAttention::new(&layer.self_attn, weights, &name("self_attn"), number)?,
            mlp_norms: TrainedNorms { before: named(before, before_mlp)?, behind: named(behind, "post_feedforward_layernorm")? },
            feed_forward,
            rope: layer.self_attn.shape().rope,
            residual_multiplier: layer.residual_multiplier() as f32,
        })
    }

    /// The residual stream after the layer.
    ///
    /// # Shapes
    /// - x, output: `[tokens, hidden_size]`
    /// - angles: one for each of the model's rotations
    pub(super) fn forward(&self, x: &[f32], tokens: &Tokens, angles: &[Angles]) -> (Buffer, Kept) {
        let normed = self.attention_norms.before(x, tokens);
        let (middle, attended, attention) = self.add(&self.attention_norms, x, tokens, |out| {
            self.attention.forward(normed.as_deref().unwrap_or(x), tokens, &angles[self.rope], out)
        });
        drop(normed);
        let normed = self.mlp_norms.before(&middle, tokens);
        let input = normed.as_deref().unwrap_or(&middle);
        let (out, transformed, mlp) = self.add(&self.mlp_norms, &middle, tokens, |out| match &self.feed_forward {
            FeedForward::Dense(dense) => KeptMlp::Dense(dense.add(input, None, tokens, out)),
            FeedForward::Routed(routed) => KeptMlp::Routed(routed.add(input, tokens, out)),
        });
        drop(normed);
        (out, Kept { attention, attended, middle, mlp, transformed })
    }

    /// The residual stream `x` and what `part` adds to its argument, behind a norm if there is one;
    /// the input of this norm; and what the part keeps.
    fn add<K>(&self, norms: &TrainedNorms, x: &[f32], tokens: &Tokens, part: impl FnOnce(&mut [f32]) -> K) -> (Buffer, Option<Buffer>, K) {
        let mut out = tokens.memory.copied(x);
        if norms.behind.is_none() && self.residual_multiplier == 1.0 {
            let kept = part(&mut out);
            return (out, None, kept);
        }
        let mut change = tokens.memory.zeros(x.len());
        let kept = part(&mut change);
        let normed = norms.behind.as_ref().map(|norm| norm.forward(&change, tokens.memory));
        let added = normed.as_deref().unwrap_or(&change);
        let pieces = out.chunks_mut(PIECE).zip(added.chunks(PIECE));
        kernels::each(pieces, |(out, added): (&mut [f32], &[f32])| {
            out.iter_mut().zip(added).for_each(|(out, added)| *out += added * self.residual_multiplier);
        });
        (out, norms.behind.is_some().then_some(change), kept)
    }

    /// The backward pass of [`Self::add`] to the part: from the derivatives by its output to those
    /// by what the part adds; `None` where both are the same.
    fn add_backward(
        &self,
        norms: &TrainedNorms,
        change: Option<Buffer>,
        by: &[f32],
        tokens: &Tokens,
        gradients: &mut CpuGradients,
    ) -> Option<Buffer> {
        if norms.behind.is_none() && self.residual_multiplier == 1.0 {
            return None;
        }
        let mut by_added = tokens.memory.copied(by);
        if self.residual_multiplier != 1.0 {
            kernels::scale(&mut by_added, self.residual_multiplier);
        }
        match (&norms.behind, change) {
            (Some(norm), Some(change)) => {
                let mut by_change = tokens.memory.zeros(change.len());
                norm.backward(&change, &by_added, &mut by_change, gradients);
                Some(by_change)
            }
            _ => Some(by_added),
        }
    }

    /// Turns the derivatives by the output into those by the input `x`, and adds to the gradients.
    ///
    /// # Shapes
    /// - x, by: `[tokens, hidden_size]`
    ///
    /// # Errors
    /// When another kind of layer kept the data.
    pub(super) fn backward(
        &self,
        kept: Kept,
        x: &[f32],
        tokens: &Tokens,
        angles: &[Angles],
        by: &mut [f32],
        gradients: &mut CpuGradients,
    ) -> Result<(), ModelError> {
        let Kept { attention, attended, middle, mlp, transformed } = kept;
        let by_part = self.add_backward(&self.mlp_norms, transformed, by, tokens, gradients);
        let normed = self.mlp_norms.before(&middle, tokens);
        let (input, by_out) = (normed.as_deref().unwrap_or(&middle), by_part.as_deref().unwrap_or(by));
        let by_normed = match (&self.feed_forward, mlp) {
            (FeedForward::Dense(dense), KeptMlp::Dense(kept)) => dense.backward(kept, input, None, tokens, by_out, gradients).0,
            (FeedForward::Routed(routed), KeptMlp::Routed(kept)) => routed.backward(kept, input, tokens, by_out, gradients),
            // A layer is given back what it kept itself.
            (FeedForward::Dense(_), KeptMlp::Routed(_)) | (FeedForward::Routed(_), KeptMlp::Dense(_)) => {
                let place = "compute::cpu::training::layer";
                return Err(ModelError::Device(format!("{place}: expected the data of the same layer, found those of another kind")));
            }
        };
        self.mlp_norms.before_backward(&middle, &by_normed, by, gradients);
        drop((by_part, normed, by_normed));

        let by_part = self.add_backward(&self.attention_norms, attended, by, tokens, gradients);
        let normed = self.attention_norms.before(x, tokens);
        let (input, by_out) = (normed.as_deref().unwrap_or(x), by_part.as_deref().unwrap_or(by));
        let by_normed = self.attention.backward(attention, input, tokens, &angles[self.rope], by_out, gradients);
        self.attention_norms.before_backward(x, &by_normed, by, gradients);
        Ok(())
    }
}

/// How many projections the attention of a layer has.
fn of_attention(layer: &Layer) -> u64 {
    layer.self_attn.inputs().len() as u64 + 1
}

impl TrainedNorms {
    /// The normed rows; `None` where there is no norm.
    fn before(&self, x: &[f32], tokens: &Tokens) -> Option<Buffer> {
        self.before.as_ref().map(|norm| norm.forward(x, tokens.memory))
    }

    /// The backward pass of [`Self::before`]: adds to the derivatives by `x`.
    fn before_backward(&self, x: &[f32], by_normed: &[f32], by_x: &mut [f32], gradients: &mut CpuGradients) {
        match &self.before {
            Some(norm) => norm.backward(x, by_normed, by_x, gradients),
            None => by_x.iter_mut().zip(by_normed).for_each(|(to, from)| *to += from),
        }
    }
}
