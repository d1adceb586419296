//! The transformer on the CPU, in kernels of our own: for sampling, and for logprobs and rewards
//! without gradients.
//!
//! Computes what [`Decoder::forward`](crate::compute::Decoder::forward) computes, from weights laid
//! out once, on sequences of any lengths without padding. The bits of a position do not depend on
//! the sequences computed beside it, nor on the number of positions at once. Knows nothing of
//! sampling or losses.

use std::ops::Range;

use rayon::prelude::*;

use super::cache::{CpuCache, Scratch, Segments};
use super::kernels::{self, Left, Packed, View};
use super::mlp::{CpuMlp, CpuProjection, packed_in};
use super::routed::CpuRoutedMlp;
use crate::compute::reference::attention::AttentionShape;
use crate::compute::reference::parameters::host_values;
use crate::compute::reference::transformer::{LogitRule, Norms};
use crate::compute::{CausalLm, Decoder, Layer, Norm, Precision, RewardModel, Span};
use crate::model::{ModelError, RopeTable};

/// Multiply-adds of attention for one thread, at least.
const WORTH_A_THREAD: usize = 1 << 16;

/// Rows of queries and keys rotated at once.
const ROTATED_TOGETHER: usize = 8;

/// A model's weights, laid out for the CPU.
#[derive(Debug)]
pub struct CpuDecoder {
    vocab_size: usize,
    hidden_size: usize,
    /// `[vocab_size, hidden_size]`; `None` when the head's weights are looked up instead.
    embedding: Option<Vec<f32>>,
    layers: Vec<CpuLayer>,
    norm: CpuNorm,
    /// `[hidden_size, outputs]`.
    head: Packed,
    /// From the head's products to logits.
    rule: LogitRule,
    ropes: Vec<RopeTable>,
    embedding_multiplier: f32,
    precision: Precision,
}

/// One layer's weights; projections of one input stand beside each other.
#[derive(Debug)]
struct CpuLayer {
    attention_norms: CpuNorms,
    /// Queries, keys and values.
    qkv: CpuProjection,
    query_norm: Option<CpuNorm>,
    key_norm: Option<CpuNorm>,
    output: CpuProjection,
    mlp_norms: CpuNorms,
    feed_forward: FeedForward,
    residual_multiplier: f32,
    shape: AttentionShape,
}

/// The norms before and behind a part of a layer.
#[derive(Debug)]
struct CpuNorms {
    before: Option<CpuNorm>,
    behind: Option<CpuNorm>,
}

#[derive(Debug)]
enum FeedForward {
    Dense(CpuMlp),
    Routed(CpuRoutedMlp),
}

#[derive(Debug)]
struct CpuNorm {
    weight: Vec<f32>,
    epsilon: f32,
}

impl CpuDecoder {
    /// A language model's weights; [`Self::head`] gives logits.
    ///
    /// # Errors
    /// When a parameter is not f32.
    pub fn from_causal_lm(model: CausalLm) -> Result<Self, ModelError> {
        let rule = model.logit_rule();
        let CausalLm { model, lm_head, .. } = model;
        let embedding = model.embed_tokens.weight.val();
        let [vocab_size, hidden_size] = embedding.dims();
        let embedding = host_values(embedding)?;
        match lm_head {
            Some(head) => Self::new(model, CpuProjection::fused(&[&head])?.weight, rule, Some(embedding)),
            None => {
                let head = packed_in(model.precision(), Packed::of_columns(hidden_size, vocab_size, &embedding));
                // Embeddings are not rounded: where the head lost digits, they are kept apart.
                let is_rounded = |number: &f32| kernels::round(*number).to_bits() == number.to_bits();
                let is_whole = model.precision() == Precision::F32 || embedding.par_iter().all(is_rounded);
                let looked_up = if is_whole { None } else { Some(embedding) };
                Self::new(model, head, rule, looked_up)
            }
        }
    }

    /// A reward model's weights; [`Self::head`] gives one score.
    ///
    /// # Errors
    /// When a parameter is not f32.
    pub fn from_reward_model(model: RewardModel) -> Result<Self, ModelError> {
        let embedding = host_values(model.model.embed_tokens.weight.val())?;
        Self::new(model.model, CpuProjection::fused(&[&model.score])?.weight, LogitRule::PLAIN, Some(embedding))
    }

    /// Takes the layers apart one by one: few weights are in memory twice.
    fn new(decoder: Decoder, head: Packed, rule: LogitRule, embedding: Option<Vec<f32>>) -> Result<Self, ModelError> {
        let [vocab_size, hidden_size] = decoder.embed_tokens.weight.val().dims();
        let (ropes, embedding_multiplier) = (decoder.ropes().to_vec(), decoder.embedding_multiplier() as f32);
        let precision = decoder.precision();
        drop(decoder.embed_tokens);
        let layer = |layer: Layer| {
            let attention = &layer.self_attn;
            Ok(CpuLayer {
                attention_norms: CpuNorms::new(layer.attention_norms())?,
                qkv: CpuProjection::fused(&attention.inputs())?,
                query_norm: attention.q_norm.as_ref().map(CpuNorm::new).transpose()?,
                key_norm: attention.k_norm.as_ref().map(CpuNorm::new).transpose()?,
                output: CpuProjection::fused(&[&attention.o_proj])?,
                mlp_norms: CpuNorms::new(layer.mlp_norms())?,
                feed_forward: FeedForward::new(&layer)?,
                residual_multiplier: layer.residual_multiplier() as f32,
                shape: attention.shape(),
            })
        };
        Ok(Self {
            vocab_size,
            hidden_size,
            embedding,
            norm: CpuNorm::new(&decoder.norm)?,
            layers: decoder.layers.into_iter().map(layer).collect::<Result<_, ModelError>>()?,
            head,
            rule,
            ropes,
            embedding_multiplier,
            precision,
        })
    }

    /// An empty cache for this model.
    pub fn new_cache(&self) -> CpuCache {
        let shape = self.layers.first().map(|layer| layer.shape);
        let (key_value_heads, head_dim) = shape.map_or((0, 0), |shape| (shape.key_value_heads, shape.head_dim));
        CpuCache::new(self.layers.len(), key_value_heads, head_dim, self.precision)
    }

    /// Width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Width of the output of [`Self::head`].
    pub fn outputs(&self) -> usize {
        self.head.columns()
    }

    /// Hidden states after the last norm, of all spans' tokens, one span after the other. The
    /// spans' sequences hold them afterwards.
    ///
    /// A span whose sequence is the prefix of another span's must come before it, and a sequence
    /// have one span only.
    ///
    /// # Shapes
    /// - output: `[tokens, hidden_size]`
    ///
    /// # Errors
    /// When an id is outside the vocabulary; the cache is as it was then.
    pub fn forward(&self, spans: &[Span<'_>], cache: &mut CpuCache) -> Result<Vec<f32>, ModelError> {
        let pass = self.pass(spans, cache)?;
        let mut x = vec![0.0; pass.places.len() * self.hidden_size];
        self.embed(&pass.places, &mut x);
        let mut scratch = std::mem::take(&mut cache.scratch);
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(index, &mut x, &pass, cache, &mut scratch);
        }
        cache.scratch = scratch;
        for span in spans {
            cache.advance(span.sequence, span.tokens.len());
        }
        Ok(self.norm.normed(&x))
    }

    /// Logits or scores of hidden states.
    ///
    /// # Shapes
    /// - hidden: `[rows, hidden_size]`
    /// - out: `[rows, outputs]`, whatever it was before
    pub fn head(&self, hidden: &[f32], out: &mut Vec<f32>) {
        out.resize(hidden.len() / self.hidden_size.max(1) * self.head.columns(), 0.0);
        kernels::product(Left::Rows(hidden), &self.head, out);
        if self.rule != LogitRule::PLAIN {
            kernels::limit(out, self.rule.scale as f32, self.rule.cap.map(|cap| cap as f32));
        }
    }

    /// Where each token of the spans is.
    fn pass(&self, spans: &[Span<'_>], cache: &CpuCache) -> Result<Pass, ModelError> {
        let mut rows = vec![0..0; cache.sequences()];
        let mut places = Vec::with_capacity(spans.iter().map(|span| span.tokens.len()).sum());
        let mut read: Vec<(usize, usize)> = Vec::new();
        for span in spans {
            // A prefix of the same pass counts already.
            let before = cache.prefix(span.sequence).and_then(|prefix| read.iter().find(|(number, _)| *number == prefix));
            let start = cache.length(span.sequence) + before.map_or(0, |(_, tokens)| *tokens);
            rows[span.sequence] = places.len()..places.len() + span.tokens.len();
            for (past, &token) in span.tokens.iter().enumerate() {
                let token = usize::try_from(token).ok().filter(|token| *token < self.vocab_size).ok_or_else(|| {
                    ModelError::Sequences(format!("token id {token}, expected 0 to {}", self.vocab_size.saturating_sub(1)))
                })?;
                places.push(TokenPlace { token, sequence: span.sequence, past, position: start + past });
            }
            read.push((span.sequence, span.tokens.len()));
        }
        let angles = self.ropes.iter().map(|rope| angles(rope, places.iter().map(|place| place.position))).collect();
        Ok(Pass { places, rows, angles })
    }

    fn embed(&self, places: &[TokenPlace], x: &mut [f32]) {
        for (place, row) in places.iter().zip(x.chunks_exact_mut(self.hidden_size.max(1))) {
            match &self.embedding {
                Some(embedding) => row.copy_from_slice(&embedding[place.token * self.hidden_size..][..self.hidden_size]),
                None => self.head.column(place.token, row),
            }
            if self.embedding_multiplier != 1.0 {
                row.iter_mut().for_each(|number| *number *= self.embedding_multiplier);
            }
        }
    }
}

/// The tokens of a pass.
#[derive(Debug)]
struct Pass {
    /// One a token.
    places: Vec<TokenPlace>,
    /// For each sequence of the cache, its own tokens.
    rows: Vec<Range<usize>>,
    /// For each of the model's rotations, the cosines and sines of each token's position:
    /// `[tokens, 2, pairs]`.
    angles: Vec<Vec<f32>>,
}

/// A token in its sequence.
#[derive(Clone, Copy, Debug)]
struct TokenPlace {
    token: usize,
    sequence: usize,
    /// Positions past the end of the sequence in the cache before this pass.
    past: usize,
    /// Counted from the start of the sequence, its prefix included.
    position: usize,
}

impl CpuLayer {
    /// # Shapes
    /// - x: `[tokens, hidden_size]`, changed in place
    fn forward(&self, index: usize, x: &mut [f32], pass: &Pass, cache: &mut CpuCache, scratch: &mut Scratch) {
        let shape = self.shape;
        let Scratch { normed, qkv, attended, mlp, change } = scratch;
        self.qkv.apply(self.attention_norms.before(x, normed), qkv);
        self.place(qkv, &pass.angles[shape.rope]);
        cache.append(index, &pass.rows, qkv, shape.qkv_width());
        self.attend(index, &pass.places, qkv, cache, attended);
        self.add(&self.attention_norms, x, change, |out| self.output.add(attended, out));
        match &self.mlp_norms.before {
            Some(norm) => norm.apply(x, normed),
            None => x.clone_into(normed),
        }
        self.add(&self.mlp_norms, x, change, |out| match &self.feed_forward {
            FeedForward::Dense(dense) => dense.add(normed, out, mlp),
            FeedForward::Routed(routed) => routed.add(normed, out, mlp),
        });
    }

    /// Adds what `part` adds to its argument to the residual stream `x`, behind the part's norm.
    fn add(&self, norms: &CpuNorms, x: &mut [f32], change: &mut Vec<f32>, part: impl FnOnce(&mut [f32])) {
        if norms.behind.is_none() && self.residual_multiplier == 1.0 {
            part(x);
            return;
        }
        change.clear();
        change.resize(x.len(), 0.0);
        part(change);
        let normed = norms.behind.as_ref().map(|norm| norm.normed(change));
        x.iter_mut().zip(normed.as_ref().unwrap_or(change)).for_each(|(x, change)| *x += change * self.residual_multiplier);
    }

    /// Norms queries and keys where the family does, rotates them by their positions, and scales
    /// queries.
    fn place(&self, qkv: &mut [f32], angles: &[f32]) {
        let shape = self.shape;
        let scale = shape.scale as f32;
        let tokens = qkv.len() / shape.qkv_width().max(1);
        let angle_width = angles.len() / tokens.max(1);
        let place = |(row, angles): (&mut [f32], &[f32])| {
            let (queries, rest) = row.split_at_mut(shape.query_width());
            let (keys, _) = rest.split_at_mut(shape.key_width());
            for (heads, norm) in [(&mut *queries, &self.query_norm), (&mut *keys, &self.key_norm)] {
                if let Some(norm) = norm {
                    let normed = norm.normed(heads);
                    heads.copy_from_slice(&normed);
                }
                if shape.rotary {
                    let (cosines, sines) = angles.split_at(angle_width / 2);
                    kernels::rotate(heads, shape.head_dim, cosines, sines);
                }
            }
            queries.iter_mut().for_each(|number| *number *= scale);
        };
        let (width, angle_width) = (shape.qkv_width(), angle_width.max(1));
        let pieces = qkv.chunks_mut(width * ROTATED_TOGETHER).zip(angles.chunks(angle_width * ROTATED_TOGETHER));
        kernels::each(pieces, |(rows, angles)| rows.chunks_exact_mut(width).zip(angles.chunks_exact(angle_width)).for_each(place));
    }

    /// The attention of each token's queries over the cache: `[tokens, heads · head_dim]`.
    fn attend(&self, index: usize, places: &[TokenPlace], qkv: &[f32], cache: &CpuCache, out: &mut Vec<f32>) {
        let AttentionShape { heads, key_value_heads, head_dim, window, cap, .. } = self.shape;
        let view = View { window, cap: cap.map(|cap| cap as f32) };
        let (width, group) = (self.shape.query_width(), self.shape.query_width() / key_value_heads.max(1));
        out.resize(places.len() * width, 0.0);
        let work: usize = places.iter().map(|place| 2 * (place.position + 1).min(window) * width).sum();
        let items = places.len() * key_value_heads;
        // So many items are worth a thread's while.
        let at_least = (items * WORTH_A_THREAD).checked_div(work).unwrap_or(1).clamp(1, items.max(1));
        debug_assert_eq!(heads * head_dim, width);
        let group = group.max(1);
        kernels::each(out.chunks_mut(group * at_least).enumerate(), |(piece, out): (usize, &mut [f32])| {
            let mut scores = Vec::new();
            for (item, out) in (piece * at_least..).zip(out.chunks_exact_mut(group)) {
                let (row, head) = (item / key_value_heads, item % key_value_heads);
                let place = places[row];
                let queries = &qkv[row * self.shape.qkv_width() + head * group..][..group];
                let heads = [head, key_value_heads];
                match cache.segments(index, place.sequence, place.past) {
                    Segments::Singles(segments) => kernels::attend(queries, head_dim, &segments, heads, view, &mut scores, out),
                    Segments::Pairs(segments) => kernels::attend(queries, head_dim, &segments, heads, view, &mut scores, out),
                }
            }
        });
    }
}

impl FeedForward {
    fn new(layer: &Layer) -> Result<Self, ModelError> {
        match (layer.mlp_projections(), &layer.routed) {
            (Some(projections), _) => Ok(Self::Dense(CpuMlp::new(&projections)?)),
            (None, Some(routed)) => Ok(Self::Routed(CpuRoutedMlp::new(routed)?)),
            (None, None) => Err(ModelError::Device("compute::cpu::decoder: a layer without MLP and experts".to_string())),
        }
    }
}

impl CpuNorms {
    fn new(norms: Norms<'_>) -> Result<Self, ModelError> {
        let Norms { before, behind } = norms;
        Ok(Self { before: before.map(CpuNorm::new).transpose()?, behind: behind.map(CpuNorm::new).transpose()? })
    }

    /// The normed rows in `out`, or the rows as they are.
    fn before<'a>(&self, x: &'a [f32], out: &'a mut Vec<f32>) -> &'a [f32] {
        match &self.before {
            Some(norm) => {
                norm.apply(x, out);
                out
            }
            None => x,
        }
    }
}

impl CpuNorm {
    fn new(norm: &Norm) -> Result<Self, ModelError> {
        Ok(Self { weight: host_values(norm.factors())?, epsilon: norm.epsilon() })
    }

    fn normed(&self, x: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.apply(x, &mut out);
        out
    }

    fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len(), 0.0);
        kernels::rms_norm(x, &self.weight, self.epsilon, out);
    }
}

/// The cosines and sines of each position's angles: `[positions, 2, pairs]`.
pub(super) fn angles(rope: &RopeTable, positions: impl Iterator<Item = usize>) -> Vec<f32> {
    let of_position = |position: usize| {
        let angles = rope.frequencies.iter().map(move |frequency| position as f32 * frequency);
        angles.clone().map(f32::cos).chain(angles.map(f32::sin)).map(|number| number * rope.factor)
    };
    positions.flat_map(of_position).collect()
}
