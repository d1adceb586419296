//! Attention in training: queries, keys and values to what they find, and back. Knows nothing of the layer around it.

use burn::nn::RmsNorm;
use rayon::prelude::*;

use super::linear::{Linear, Norm};
use super::parameter::CpuGradients;
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::kernels::{self, Attended, AttentionGradients, BLOCK, Segment};
use crate::model::cpu::AttentionShape;
use crate::model::{Attention, ModelError, Projection};

/// An attention's parameters.
#[derive(Debug)]
pub(super) struct TrainedAttention {
    queries: Linear,
    keys: Linear,
    values: Linear,
    output: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    shape: AttentionShape,
}

/// What the way back needs.
#[derive(Debug)]
pub(super) struct Kept {
    /// Before their norms, where there are norms: `[tokens, width]`.
    raw_queries: Option<Vec<f32>>,
    raw_keys: Option<Vec<f32>>,
    /// `[tokens, heads, head_dim]`, normed, turned, and divided by √head_dim.
    queries: Vec<f32>,
    /// `[tokens, key_value_heads, head_dim]`, normed and turned.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[tokens, heads, head_dim]`.
    found: Vec<f32>,
    /// `[tokens, heads]`.
    normalizers: Vec<f32>,
}

impl TrainedAttention {
    /// `number` is that of its first projection among all of the model's.
    pub(super) fn of(attention: &Attention, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        let linear =
            |projection: &Projection, field: &str, past: u64| Linear::of(projection, weights, &format!("{name}.{field}"), number + past);
        let norm = |norm: &RmsNorm, field: &str| Norm::of(norm, weights, &format!("{name}.{field}"));
        let (queries, keys) = (linear(&attention.q_proj, "q_proj", 0)?, linear(&attention.k_proj, "k_proj", 1)?);
        Ok(Self {
            shape: AttentionShape::new(attention, queries.dims()[1], keys.dims()[1]),
            queries,
            keys,
            values: linear(&attention.v_proj, "v_proj", 2)?,
            output: linear(&attention.o_proj, "o_proj", 3)?,
            query_norm: attention.q_norm.as_ref().map(|query_norm| norm(query_norm, "q_norm")).transpose()?,
            key_norm: attention.k_norm.as_ref().map(|key_norm| norm(key_norm, "k_norm")).transpose()?,
        })
    }

    /// Adds to `out` what `x` finds.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    /// - angles: `[tokens, 2, head_dim / 2]`
    pub(super) fn forward(&self, x: &[f32], tokens: &Tokens, angles: &[f32], out: &mut [f32]) -> Kept {
        let scale = (self.shape.head_dim as f64).powf(-0.5) as f32;
        let (raw_queries, queries) = self.place(self.queries.forward(x, tokens), self.query_norm.as_ref(), angles, Some(scale));
        let (raw_keys, keys) = self.place(self.keys.forward(x, tokens), self.key_norm.as_ref(), angles, None);
        let values = self.values.forward(x, tokens);
        let (found, normalizers) = self.attend(tokens, &queries, &keys, &values);
        self.output.add(&found, tokens, out);
        Kept { raw_queries, raw_keys, queries, keys, values, found, normalizers }
    }

    /// Adds to the derivatives by `x`, and to the gradients.
    ///
    /// # Shapes
    /// - x, by_out, by_x: `[tokens, hidden_size]`
    #[expect(clippy::too_many_arguments, reason = "what every way back takes, and the angles")]
    pub(super) fn backward(
        &self,
        kept: Kept,
        x: &[f32],
        tokens: &Tokens,
        angles: &[f32],
        by_out: &[f32],
        by_x: &mut [f32],
        gradients: &mut CpuGradients,
    ) {
        let mut by_found = vec![0.0; kept.found.len()];
        self.output.backward(&kept.found, tokens, by_out, &mut by_found, gradients);
        let [by_queries, by_keys, by_values] = self.attend_backward(tokens, &kept, &by_found);
        drop(by_found);
        self.values.backward(x, tokens, &by_values, by_x, gradients);
        let scale = (self.shape.head_dim as f64).powf(-0.5) as f32;
        let by_queries = self.place_backward(by_queries, self.query_norm.as_ref(), kept.raw_queries, angles, Some(scale), gradients);
        self.queries.backward(x, tokens, &by_queries, by_x, gradients);
        let by_keys = self.place_backward(by_keys, self.key_norm.as_ref(), kept.raw_keys, angles, None, gradients);
        self.keys.backward(x, tokens, &by_keys, by_x, gradients);
    }

    /// Heads before their norm, if they have one, and normed, turned by their positions and multiplied by `scale`.
    fn place(&self, heads: Vec<f32>, norm: Option<&Norm>, angles: &[f32], scale: Option<f32>) -> (Option<Vec<f32>>, Vec<f32>) {
        let (raw, mut heads) = match norm {
            Some(norm) => {
                let normed = norm.forward(&heads);
                (Some(heads), normed)
            }
            None => (None, heads),
        };
        self.each_token(&mut heads, angles, |heads, cosines, sines| {
            if self.shape.rotary {
                kernels::rotate(heads, cosines, sines);
            }
            if let Some(scale) = scale {
                heads.iter_mut().for_each(|number| *number *= scale);
            }
        });
        (raw, heads)
    }

    /// The way back through [`Self::place`].
    fn place_backward(
        &self,
        mut by_heads: Vec<f32>,
        norm: Option<&Norm>,
        raw: Option<Vec<f32>>,
        angles: &[f32],
        scale: Option<f32>,
        gradients: &mut CpuGradients,
    ) -> Vec<f32> {
        self.each_token(&mut by_heads, angles, |heads, cosines, sines| {
            if let Some(scale) = scale {
                heads.iter_mut().for_each(|number| *number *= scale);
            }
            if self.shape.rotary {
                kernels::rotate_back(heads, cosines, sines);
            }
        });
        match (norm, raw) {
            (Some(norm), Some(raw)) => {
                let mut by_raw = vec![0.0; raw.len()];
                norm.backward(&raw, &by_heads, &mut by_raw, gradients);
                by_raw
            }
            _ => by_heads,
        }
    }

    /// Hands the heads of every token with its cosines and sines to `change`.
    fn each_token(&self, heads: &mut [f32], angles: &[f32], change: impl Fn(&mut [f32], &[f32], &[f32]) + Sync) {
        let angle_width = self.shape.head_dim.max(1);
        let width = heads.len() / (angles.len() / angle_width).max(1);
        heads.par_chunks_mut(width.max(1)).zip(angles.par_chunks(angle_width)).for_each(|(heads, angles)| {
            let (cosines, sines) = angles.split_at(angle_width / 2);
            change(heads, cosines, sines);
        });
    }

    /// What each token's queries find, and their normalizers.
    fn attend(&self, tokens: &Tokens, queries: &[f32], keys: &[f32], values: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let AttentionShape { heads, key_value_heads, head_dim, window, .. } = self.shape;
        let (width, key_width) = (heads * head_dim, key_value_heads * head_dim);
        let mut found = vec![0.0; queries.len()];
        let mut normalizers = vec![0.0; tokens.count() * heads];
        // Each span's rows, and the number of the span before it that it goes on from.
        let mut spans: Vec<(std::ops::Range<usize>, Option<usize>)> = Vec::new();
        for place in &tokens.families {
            let (stem, mut row) = (spans.len(), place.row);
            for (span, length) in place.lengths.iter().enumerate() {
                spans.push((row..row + length, (span > 0).then_some(stem)));
                row += length;
            }
        }
        let blocks = |(rows, _): &(std::ops::Range<usize>, _)| {
            let mut blocks = vec![0.0; rows.len().div_ceil(BLOCK) * key_width * BLOCK];
            for (past, keys) in keys[rows.start * key_width..rows.end * key_width].chunks_exact(key_width.max(1)).enumerate() {
                let block = &mut blocks[past / BLOCK * key_width * BLOCK..][past % BLOCK..];
                block.iter_mut().step_by(BLOCK).zip(keys).for_each(|(to, from)| *to = *from);
            }
            blocks
        };
        let blocks: Vec<Vec<f32>> = spans.par_iter().map(blocks).collect();
        let segment = |span: usize, length: usize| {
            let first = spans[span].0.start;
            Segment { keys: &blocks[span], values: &values[first * key_width..(first + length) * key_width], length }
        };
        let nothing = Segment { keys: &[], values: &[], length: 0 };
        let places: Vec<(usize, usize)> =
            spans.iter().enumerate().flat_map(|(span, (rows, _))| (1..=rows.len()).map(move |length| (span, length))).collect();
        let group = heads.checked_div(key_value_heads).unwrap_or(0);
        let rows = found.par_chunks_mut(width.max(1)).zip(normalizers.par_chunks_mut(heads.max(1)));
        let rows = rows.zip(queries.par_chunks(width.max(1))).zip(&places);
        rows.for_each_init(Vec::new, |scores, (((found, normalizers), queries), &(span, length))| {
            let before = spans[span].1.map_or(nothing, |stem| segment(stem, spans[stem].0.len()));
            let segments = [before, segment(span, length)];
            let each = found.chunks_exact_mut((group * head_dim).max(1)).zip(normalizers.chunks_exact_mut(group.max(1)));
            for (head, ((found, normalizers), queries)) in each.zip(queries.chunks_exact((group * head_dim).max(1))).enumerate() {
                let place = [head, key_value_heads];
                kernels::attend_and_normalize(queries, head_dim, &segments, place, window, scores, found, normalizers);
            }
        });
        (found, normalizers)
    }

    /// The derivatives by queries, keys and values, each in the shape of its own.
    fn attend_backward(&self, tokens: &Tokens, kept: &Kept, by_found: &[f32]) -> [Vec<f32>; 3] {
        let AttentionShape { heads, key_value_heads, head_dim, window, .. } = self.shape;
        let group = heads.checked_div(key_value_heads).unwrap_or(0);
        let work: Vec<(usize, usize)> =
            (0..tokens.families.len()).flat_map(|family| (0..key_value_heads).map(move |head| (family, head))).collect();
        let of_head = |&(family, head): &(usize, usize)| {
            let place = &tokens.families[family];
            let rows = place.row..place.row + place.tokens();
            let gather = |values: &[f32], each: usize| -> Vec<f32> {
                let rows = values[rows.start * key_value_heads * each..rows.end * key_value_heads * each]
                    .chunks_exact((key_value_heads * each).max(1));
                rows.flat_map(|row| &row[head * each..(head + 1) * each]).copied().collect()
            };
            let [queries, found, by_found] = [&kept.queries, &kept.found, by_found].map(|values| gather(values, group * head_dim));
            let [keys, values] = [&kept.keys, &kept.values].map(|values| gather(values, head_dim));
            let attended = Attended {
                lengths: &place.lengths,
                head_dim,
                window,
                queries: &queries,
                keys: &keys,
                values: &values,
                out: &found,
                normalizers: &gather(&kept.normalizers, group),
            };
            kernels::attend_backward(attended, &by_found)
        };
        let found: Vec<AttentionGradients> = work.par_iter().map(of_head).collect();
        let (mut by_queries, mut by_keys, mut by_values) =
            (vec![0.0; kept.queries.len()], vec![0.0; kept.keys.len()], vec![0.0; kept.values.len()]);
        for (&(family, head), gradients) in work.iter().zip(found) {
            let row = tokens.families[family].row;
            for (by, found, each) in [
                (&mut by_queries, gradients.queries, group * head_dim),
                (&mut by_keys, gradients.keys, head_dim),
                (&mut by_values, gradients.values, head_dim),
            ] {
                let rows = by[row * key_value_heads * each..].chunks_exact_mut((key_value_heads * each).max(1));
                for (to, from) in rows.zip(found.chunks_exact(each.max(1))) {
                    to[head * each..(head + 1) * each].copy_from_slice(from);
                }
            }
        }
        [by_queries, by_keys, by_values]
    }
}
