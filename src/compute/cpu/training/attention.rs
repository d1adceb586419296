//! Attention in training, forward and backward. Knows nothing of the layer around it.

use std::ops::Range;

use super::columns;
use super::linear::{self, Linear, Norm};
use super::parameter::CpuGradients;
use super::tokens::{Angles, TokenPlace, Tokens};
use super::weights::CpuWeights;
use crate::compute::cpu::kernels::{self, Buffer, Found, Memory, SelfAttention};
use crate::compute::reference::attention::AttentionShape;
use crate::compute::{self, Attention, Projection};
use crate::model::ModelError;

/// An attention's parameters.
#[derive(Debug)]
pub(super) struct TrainedAttention {
    inputs: Inputs,
    output: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    shape: AttentionShape,
}

/// The projections to queries, keys and values.
#[derive(Debug)]
enum Inputs {
    Separate(Box<[Linear; 3]>),
    Fused(Box<Linear>),
}

/// The inputs of the backward pass.
#[derive(Debug)]
pub(super) struct Kept {
    /// Before their norms, where there are norms: `[tokens, width]`.
    raw_queries: Option<Buffer>,
    raw_keys: Option<Buffer>,
    /// `[tokens, heads, head_dim]`, normed, rotated and scaled.
    queries: Buffer,
    /// `[tokens, key_value_heads, head_dim]`, normed and rotated.
    keys: Buffer,
    values: Buffer,
    /// `[tokens, heads, head_dim]`.
    found: Buffer,
    /// `[tokens, heads]`.
    normalizers: Buffer,
}

impl TrainedAttention {
    /// `number` is the number of its first projection in the model.
    pub(super) fn new(attention: &Attention, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        let linear =
            |projection: &Projection, field: &str, past: u64| Linear::new(projection, weights, &format!("{name}.{field}"), number + past);
        let norm = |norm: &compute::Norm, field: &str| Norm::new(norm, weights, &format!("{name}.{field}"));
        let inputs = match (&attention.q_proj, &attention.k_proj, &attention.v_proj, &attention.qkv_proj) {
            (Some(queries), Some(keys), Some(values), _) => {
                Inputs::Separate(Box::new([linear(queries, "q_proj", 0)?, linear(keys, "k_proj", 1)?, linear(values, "v_proj", 2)?]))
            }
            (.., Some(all)) => Inputs::Fused(Box::new(linear(all, "qkv_proj", 0)?)),
            _ => return Err(ModelError::Device(format!("expected projections to queries, keys and values in {name}, found none"))),
        };
        Ok(Self {
            shape: attention.shape(),
            output: linear(&attention.o_proj, "o_proj", attention.inputs().len() as u64)?,
            inputs,
            query_norm: attention.q_norm.as_ref().map(|query_norm| norm(query_norm, "q_norm")).transpose()?,
            key_norm: attention.k_norm.as_ref().map(|key_norm| norm(key_norm, "k_norm")).transpose()?,
        })
    }

    /// Adds the attention of `x` to `out`.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn forward(&self, x: &[f32], tokens: &Tokens, angles: &Angles, out: &mut [f32]) -> Kept {
        let scale = self.shape.scale as f32;
        let [queries, keys, values] = self.project(x, tokens);
        let (raw_queries, queries) = self.place(queries, self.query_norm.as_ref(), tokens.memory, angles, Some(scale));
        let (raw_keys, keys) = self.place(keys, self.key_norm.as_ref(), tokens.memory, angles, None);
        let (found, normalizers) = self.attend(tokens, &queries, &keys, &values);
        self.output.add(&found, tokens, out);
        Kept { raw_queries, raw_keys, queries, keys, values, found, normalizers }
    }

    /// Gives the derivatives by `x`, and adds to the gradients.
    ///
    /// # Shapes
    /// - x, by_out, output: `[tokens, hidden_size]`
    pub(super) fn backward(
        &self,
        kept: Kept,
        x: &[f32],
        tokens: &Tokens,
        angles: &Angles,
        by_out: &[f32],
        gradients: &mut CpuGradients,
    ) -> Buffer {
        let by_found = linear::backward([&self.output], &kept.found, tokens, [by_out], gradients);
        let [by_queries, by_keys, by_values] = self.attend_backward(tokens, &kept, &by_found);
        drop(by_found);
        let scale = self.shape.scale as f32;
        let by_queries = self.place_backward(by_queries, self.query_norm.as_ref(), kept.raw_queries, angles, Some(scale), gradients);
        let by_keys = self.place_backward(by_keys, self.key_norm.as_ref(), kept.raw_keys, angles, None, gradients);
        match &self.inputs {
            Inputs::Separate(separate) => {
                let [queries, keys, values] = separate.each_ref();
                linear::backward([values, queries, keys], x, tokens, [&by_values, &by_queries, &by_keys], gradients)
            }
            Inputs::Fused(all) => {
                let by_all = columns::join([&by_queries, &by_keys, &by_values], self.widths(), tokens.memory);
                linear::backward([all], x, tokens, [&by_all], gradients)
            }
        }
    }

    /// Queries, keys and values: `[tokens, width]` each.
    fn project(&self, x: &[f32], tokens: &Tokens) -> [Buffer; 3] {
        match &self.inputs {
            Inputs::Separate(separate) => linear::forward(separate.each_ref(), x, tokens),
            Inputs::Fused(all) => {
                let [all] = linear::forward([all], x, tokens);
                columns::split(&all, self.widths(), tokens.memory)
            }
        }
    }

    /// The widths of queries, keys and values.
    fn widths(&self) -> [usize; 3] {
        [self.shape.query_width(), self.shape.key_width(), self.shape.key_width()]
    }

    /// Heads before their norm, if they have one, and normed, rotated by their positions and
    /// multiplied by `scale`.
    fn place(&self, heads: Buffer, norm: Option<&Norm>, memory: &Memory, angles: &Angles, scale: Option<f32>) -> (Option<Buffer>, Buffer) {
        let (raw, mut heads) = match norm {
            Some(norm) => {
                let normed = norm.forward(&heads, memory);
                (Some(heads), normed)
            }
            None => (None, heads),
        };
        self.each_token(&mut heads, angles, |heads, cosines, sines| {
            if self.shape.rotary {
                kernels::rotate(heads, self.shape.head_dim, cosines, sines);
            }
            if let Some(scale) = scale {
                heads.iter_mut().for_each(|number| *number *= scale);
            }
        });
        (raw, heads)
    }

    /// The backward pass of [`Self::place`].
    fn place_backward(
        &self,
        mut by_heads: Buffer,
        norm: Option<&Norm>,
        raw: Option<Buffer>,
        angles: &Angles,
        scale: Option<f32>,
        gradients: &mut CpuGradients,
    ) -> Buffer {
        self.each_token(&mut by_heads, angles, |heads, cosines, sines| {
            if let Some(scale) = scale {
                heads.iter_mut().for_each(|number| *number *= scale);
            }
            if self.shape.rotary {
                kernels::rotate_back(heads, self.shape.head_dim, cosines, sines);
            }
        });
        match (norm, raw) {
            (Some(norm), Some(raw)) => {
                let mut by_raw = gradients.memory().zeros(raw.len());
                norm.backward(&raw, &by_heads, &mut by_raw, gradients);
                by_raw
            }
            _ => by_heads,
        }
    }

    /// Hands the heads of every token with its cosines and sines to `change`.
    fn each_token(&self, heads: &mut [f32], angles: &Angles, change: impl Fn(&mut [f32], &[f32], &[f32]) + Sync) {
        let Angles { numbers: angles, width: angle_width } = angles;
        let angle_width = (*angle_width).max(1);
        let width = heads.len() / (angles.len() / angle_width).max(1);
        let rows = kernels::rows_together(width);
        let pieces = heads.chunks_mut(width.max(1) * rows).zip(angles.chunks(angle_width * rows));
        kernels::each(pieces, |(heads, angles)| {
            for (heads, angles) in heads.chunks_mut(width.max(1)).zip(angles.chunks(angle_width)) {
                let (cosines, sines) = angles.split_at(angle_width / 2);
                change(heads, cosines, sines);
            }
        });
    }

    /// The attention of each token's queries, and their normalizers.
    fn attend(&self, tokens: &Tokens, queries: &[f32], keys: &[f32], values: &[f32]) -> (Buffer, Buffer) {
        let (group, head_dim, cap) = (self.group(), self.shape.head_dim, self.shape.cap.map(|cap| cap as f32));
        let each = self.each_head(tokens, |place, head| {
            let rows = place.row..place.row + place.tokens();
            let gather = |values, each| self.gather(values, &rows, head, each);
            let (queries, keys, values) = (gather(queries, group * head_dim), gather(keys, head_dim), gather(values, head_dim));
            let lengths = &place.lengths;
            let attention =
                SelfAttention { lengths, head_dim, window: self.shape.window, cap, queries: &queries, keys: &keys, values: &values };
            kernels::self_attention(attention)
        });
        let mut found = tokens.memory.any(queries.len());
        let mut normalizers = tokens.memory.any(queries.len() / head_dim.max(1));
        self.scatter(tokens, &each, group * head_dim, |found| &found.out, &mut found);
        self.scatter(tokens, &each, group, |found| &found.normalizers, &mut normalizers);
        (found, normalizers)
    }

    /// The derivatives by queries, keys and values, each in the shape of its own.
    fn attend_backward(&self, tokens: &Tokens, kept: &Kept, by_found: &[f32]) -> [Buffer; 3] {
        let (group, head_dim, cap) = (self.group(), self.shape.head_dim, self.shape.cap.map(|cap| cap as f32));
        let each = self.each_head(tokens, |place, head| {
            let rows = place.row..place.row + place.tokens();
            let gather = |values, each| self.gather(values, &rows, head, each);
            let [queries, found, by_found] = [&kept.queries, &kept.found, by_found].map(|values| gather(values, group * head_dim));
            let [keys, values] = [&kept.keys, &kept.values].map(|values| gather(values, head_dim));
            let normalizers = gather(&kept.normalizers, group);
            let lengths = &place.lengths;
            let attention =
                SelfAttention { lengths, head_dim, window: self.shape.window, cap, queries: &queries, keys: &keys, values: &values };
            kernels::self_attention_backward(attention, Found { out: &found, normalizers: &normalizers }, &by_found)
        });
        let [mut by_queries, mut by_keys, mut by_values] =
            [&kept.queries, &kept.keys, &kept.values].map(|values| tokens.memory.any(values.len()));
        self.scatter(tokens, &each, group * head_dim, |gradients| &gradients.queries, &mut by_queries);
        self.scatter(tokens, &each, head_dim, |gradients| &gradients.keys, &mut by_keys);
        self.scatter(tokens, &each, head_dim, |gradients| &gradients.values, &mut by_values);
        [by_queries, by_keys, by_values]
    }

    /// Query heads for one key-value head.
    fn group(&self) -> usize {
        self.shape.heads.checked_div(self.shape.key_value_heads).unwrap_or(0)
    }

    /// The results of `work` for each prefix group and key-value head.
    fn each_head<R: Send>(&self, tokens: &Tokens, work: impl Fn(&TokenPlace, usize) -> R + Sync) -> Vec<R> {
        let heads = self.shape.key_value_heads;
        let items: Vec<(&TokenPlace, usize)> = tokens.places.iter().flat_map(|place| (0..heads).map(move |head| (place, head))).collect();
        kernels::map(items, |(place, head)| work(place, head))
    }

    /// The part of key-value head `head` in some rows, `each` numbers a row: `[rows, each]` of
    /// `[tokens, key_value_heads, each]`.
    fn gather(&self, values: &[f32], rows: &Range<usize>, head: usize, each: usize) -> Vec<f32> {
        let width = self.shape.key_value_heads * each;
        let mut gathered = Vec::with_capacity(rows.len() * each);
        for row in values[rows.start * width..rows.end * width].chunks_exact(width.max(1)) {
            gathered.extend_from_slice(&row[head * each..(head + 1) * each]);
        }
        gathered
    }

    /// Writes results of [`Self::each_head`], `each` numbers a row, in the layout of
    /// [`Self::gather`].
    fn scatter<R: Sync>(&self, tokens: &Tokens, found: &[R], each: usize, numbers: impl Fn(&R) -> &[f32] + Sync, values: &mut [f32]) {
        let heads = self.shape.key_value_heads;
        let mut groups = Vec::with_capacity(tokens.places.len());
        let mut rest = values;
        for place in &tokens.places {
            let (here, after) = rest.split_at_mut(place.tokens() * heads * each);
            groups.push(here);
            rest = after;
        }
        kernels::each(groups.into_iter().zip(found.chunks(heads.max(1))), |(rows, of_heads): (&mut [f32], &[R])| {
            for (head, of_head) in of_heads.iter().enumerate() {
                let rows = rows.chunks_exact_mut((heads * each).max(1)).zip(numbers(of_head).chunks_exact(each.max(1)));
                rows.for_each(|(to, from)| to[head * each..(head + 1) * each].copy_from_slice(from));
            }
        });
    }
}
