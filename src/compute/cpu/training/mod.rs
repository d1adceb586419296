//! Training on the CPU: the transformer forward, and backward to the gradients of its parameters.
//!
//! ```text
//! PrefixGroup ─▶ layers ─▶ hidden states ─▶ logprobs or scores ─▶ the caller's derivatives ─▶ hidden states ─▶ layers ─▶ CpuGradients
//! ```
//!
//! The reference is autodiff of [`Decoder::forward`](crate::compute::Decoder::forward). Sequences
//! have any lengths and no padding; a common prefix is computed once. Gradients have the same bits
//! on any number of threads and in micro-batches of any size. Knows nothing of losses or
//! optimizers.

mod attention;
mod columns;
mod head;
mod layer;
mod linear;
mod mlp;
mod parameter;
mod routed;
mod shards;
mod tokens;
mod turns;
mod weights;

use head::{Group, Target, TrainedHead};
use layer::{Kept, TrainedLayer};
use linear::Norm;
use parameter::Parameter;
use tokens::{Angles, TokenPlace, Tokens};
use turns::HEAD;

use super::decoder::angles;
use super::kernels::{self, Buffer, Memory};
use crate::compute::reference::transformer::LogitRule;
use crate::compute::{CausalLm, Decoder, RewardModel};
use crate::model::{ModelError, RopeTable};

pub use parameter::CpuGradients;
pub use shards::Shards;
pub use tokens::PrefixGroup;
pub use weights::CpuWeights;

/// The embedding's name.
const EMBEDDING: &str = "model.embed_tokens.weight";

/// A model in training on the CPU. Shares the weights it was made of, and lays out each when it is
/// used.
#[derive(Debug)]
pub struct CpuTraining {
    embedding: Parameter<2>,
    layers: Vec<TrainedLayer>,
    norm: Norm,
    head: TrainedHead,
    ropes: Vec<RopeTable>,
    embedding_multiplier: f32,
    /// The row of the embedding without a gradient where it is looked up.
    padding_row: Option<usize>,
    keep: Keep,
    /// The memory of passes.
    memory: Memory,
}

/// The data kept for the backward pass.
#[derive(Clone, Copy, Debug)]
enum Keep {
    Nothing,
    /// The inputs of layers; the rest is computed again, by the same arithmetic.
    Inputs,
    Everything,
}

/// A pass forward.
struct Pass<'a> {
    tokens: Tokens<'a>,
    /// One for each of the model's rotations.
    angles: Vec<Angles>,
    /// Each layer's input, and its other kept data.
    layers: Vec<(Buffer, Option<Kept>)>,
    /// After the last layer: `[tokens, hidden_size]`.
    x: Buffer,
    /// After the last norm.
    hidden: Buffer,
}

impl CpuTraining {
    /// A language model with these `weights`; frozen ones get no gradient. With `checkpointing`,
    /// layers are computed again in the backward pass and take less memory; the bits are the same.
    ///
    /// # Errors
    /// When the weights are another model's.
    pub fn from_causal_lm(model: &CausalLm, weights: &CpuWeights, checkpointing: bool, memory: &Memory) -> Result<Self, ModelError> {
        let (name, tied) = match &model.lm_head {
            Some(_) => ("lm_head.weight", false),
            None => (EMBEDDING, true),
        };
        let head = TrainedHead::new(Parameter::from_weights(weights, name.to_string())?, tied, model.logit_rule(), model.precision());
        Self::new(&model.model, weights, head, checkpointing, memory)
    }

    /// A reward model, as [`Self::from_causal_lm`].
    ///
    /// # Errors
    /// When the weights are another model's.
    pub fn from_reward_model(model: &RewardModel, weights: &CpuWeights, checkpointing: bool, memory: &Memory) -> Result<Self, ModelError> {
        let weight = Parameter::from_weights(weights, "score.weight".to_string())?;
        let head = TrainedHead::new(weight, false, LogitRule::PLAIN, model.model.precision());
        Self::new(&model.model, weights, head, checkpointing, memory)
    }

    fn new(decoder: &Decoder, weights: &CpuWeights, head: TrainedHead, checkpointing: bool, memory: &Memory) -> Result<Self, ModelError> {
        let mut number = 0;
        let layer = |(index, layer)| {
            let first = number;
            number += TrainedLayer::projections(layer);
            TrainedLayer::new(layer, weights, index, first)
        };
        Ok(Self {
            embedding: Parameter::from_weights(weights, EMBEDDING.to_string())?,
            layers: decoder.layers.iter().enumerate().map(layer).collect::<Result<_, _>>()?,
            norm: Norm::new(&decoder.norm, weights, "model.norm")?,
            head,
            ropes: decoder.ropes().to_vec(),
            embedding_multiplier: decoder.embedding_multiplier() as f32,
            padding_row: decoder.padding_row(),
            keep: if checkpointing { Keep::Inputs } else { Keep::Everything },
            memory: memory.clone(),
        })
    }

    /// The logprobs of each group's sequences: each the sum over its tokens from position
    /// `prompts[group][sequence]` on, nats, at temperature 1. The same bits whatever they are
    /// computed beside.
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    pub fn logprobs(&self, prefix_groups: &[PrefixGroup<'_>], prompts: &[Vec<usize>]) -> Result<Vec<Vec<f64>>, ModelError> {
        kernels::awake(|| {
            let pass = self.forward(prefix_groups, None, Keep::Nothing)?;
            Ok(self.head.logprobs(&pass.hidden, &self.memory, &groups(prefix_groups, prompts, &pass.tokens)))
        })
    }

    /// The scores of all sequences' last tokens, group by group. The same bits whatever they are
    /// computed beside.
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    pub fn scores(&self, prefix_groups: &[PrefixGroup<'_>]) -> Result<Vec<f32>, ModelError> {
        kernels::awake(|| {
            let pass = self.forward(prefix_groups, None, Keep::Nothing)?;
            Ok(self.head.scores(&pass.hidden, &last_rows(prefix_groups, &pass.tokens)))
        })
    }

    /// Hands each group's [`Self::logprobs`] to `derivative`. It returns a derivative by each. Adds
    /// to the gradients of Σ derivative · logprob. With `collisions`, `derivative` is given Σ log
    /// Σ_v p_v² over each sequence's tokens too, nats; else nothing.
    ///
    /// Dropout is drawn from `step`; `None` drops nothing.
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    pub fn logprobs_and_back(
        &self,
        prefix_groups: &[PrefixGroup<'_>],
        prompts: &[Vec<usize>],
        step: Option<u64>,
        collisions: bool,
        gradients: &mut CpuGradients,
        mut derivative: impl FnMut(usize, &[f64], &[f64]) -> Vec<f64>,
    ) -> Result<(), ModelError> {
        let pass = self.forward(prefix_groups, step, self.keep)?;
        let groups = groups(prefix_groups, prompts, &pass.tokens);
        if groups.iter().flatten().all(Vec::is_empty) {
            // There is nothing to pass back, and nothing gets a gradient.
            gradients.enter(HEAD);
            groups.iter().enumerate().for_each(|(at, group)| {
                let zeros = vec![0.0; group.len()];
                drop(derivative(at, &zeros, if collisions { &zeros } else { &[] }));
            });
            return Ok(());
        }
        let by_hidden = self.head.logprobs_and_back(&pass.hidden, &groups, collisions, gradients, derivative);
        self.backward(pass, by_hidden, gradients)
    }

    /// Hands the [`Self::scores`] to `derivative`. It returns a derivative by each. Adds to the
    /// gradients of Σ derivative · score.
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    pub fn scores_and_back(
        &self,
        prefix_groups: &[PrefixGroup<'_>],
        gradients: &mut CpuGradients,
        derivative: impl FnOnce(&[f32]) -> Vec<f64>,
    ) -> Result<(), ModelError> {
        let pass = self.forward(prefix_groups, None, self.keep)?;
        let rows = last_rows(prefix_groups, &pass.tokens);
        let segments: Vec<usize> = sequences_before(prefix_groups);
        let by_hidden = self.head.scores_and_back(&pass.hidden, &rows, &segments, gradients, derivative);
        self.backward(pass, by_hidden, gradients)
    }

    fn forward<'a>(&'a self, prefix_groups: &'a [PrefixGroup<'a>], step: Option<u64>, keep: Keep) -> Result<Pass<'a>, ModelError> {
        let [vocab_size, _] = self.embedding.dims();
        let tokens = Tokens::new(prefix_groups, vocab_size, step, &self.memory)?;
        let of_rope =
            |rope: &RopeTable| Angles { numbers: angles(rope, tokens.positions.iter().copied()), width: 2 * rope.frequencies.len() };
        let angles: Vec<Angles> = self.ropes.iter().map(of_rope).collect();
        let mut x = self.embed(&tokens);
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (out, kept) = layer.forward(&x, &tokens, &angles);
            let x = std::mem::replace(&mut x, out);
            match keep {
                Keep::Nothing => {}
                Keep::Inputs => layers.push((x, None)),
                Keep::Everything => layers.push((x, Some(kept))),
            }
        }
        let hidden = self.norm.forward(&x, &self.memory);
        Ok(Pass { tokens, angles, layers, x, hidden })
    }

    fn embed(&self, tokens: &Tokens) -> Buffer {
        let [_, hidden_size] = self.embedding.dims();
        let mut x = tokens.memory.any(tokens.count() * hidden_size);
        let rows = x.chunks_exact_mut(hidden_size.max(1)).zip(tokens.ids());
        rows.for_each(|(row, id)| row.copy_from_slice(&self.embedding.values()[id * hidden_size..][..hidden_size]));
        if self.embedding_multiplier != 1.0 {
            kernels::scale(&mut x, self.embedding_multiplier);
        }
        x
    }

    fn backward(&self, pass: Pass<'_>, by_hidden: Buffer, gradients: &mut CpuGradients) -> Result<(), ModelError> {
        let Pass { tokens, angles, layers, x, hidden } = pass;
        drop(hidden);
        let mut by = tokens.memory.zeros(x.len());
        self.norm.backward(&x, &by_hidden, &mut by, gradients);
        drop((x, by_hidden));
        for (passed, (layer, (x, kept))) in self.layers.iter().zip(layers).rev().enumerate() {
            let kept = match kept {
                Some(kept) => kept,
                None => layer.forward(&x, &tokens, &angles).1,
            };
            gradients.enter(HEAD + 1 + passed);
            layer.backward(kept, &x, &tokens, &angles, &mut by, gradients)?;
        }
        let [_, hidden_size] = self.embedding.dims();
        if self.embedding.trained {
            if self.embedding_multiplier != 1.0 {
                kernels::scale(&mut by, self.embedding_multiplier);
            }
            gradients.enter(HEAD + 1 + self.layers.len());
            let rows = tokens.ids().zip(by.chunks_exact(hidden_size.max(1)));
            gradients.add_rows(&self.embedding, rows.filter(|(id, _)| self.padding_row != Some(*id)));
        }
        Ok(())
    }
}

/// The tokens to predict of each group.
fn groups(prefix_groups: &[PrefixGroup<'_>], prompts: &[Vec<usize>], tokens: &Tokens) -> Vec<Group> {
    let of_group = |((group, place), prompts): ((&PrefixGroup, &TokenPlace), &Vec<usize>)| {
        let targets = |(sequence, &prompt): (usize, &usize)| {
            // A token is predicted by the state before it; nothing predicts the first one.
            let prompt = prompt.max(1);
            let tokens = group.sequence(sequence).into_iter().flatten().skip(prompt);
            // Ids are in the vocabulary, or there were no place for them.
            place.rows(sequence, prompt - 1).zip(tokens).map(|(row, token)| Target { row, token: *token as usize }).collect()
        };
        prompts.iter().enumerate().map(targets).collect()
    };
    prefix_groups.iter().zip(&tokens.places).zip(prompts).map(of_group).collect()
}

/// How many sequences come before those of each group.
fn sequences_before(prefix_groups: &[PrefixGroup<'_>]) -> Vec<usize> {
    let count = |before: &mut usize, group: &PrefixGroup| Some(std::mem::replace(before, *before + group.sequences()));
    prefix_groups.iter().scan(0, count).collect()
}

/// The row of each sequence's last token.
fn last_rows(prefix_groups: &[PrefixGroup<'_>], tokens: &Tokens) -> Vec<usize> {
    let places = prefix_groups.iter().zip(&tokens.places);
    places.flat_map(|(group, place)| (0..group.sequences()).filter_map(|sequence| place.rows(sequence, 0).last())).collect()
}
