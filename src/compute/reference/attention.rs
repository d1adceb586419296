//! Grouped-query attention. Fields bear the names of the Hugging Face checkpoint's keys. Knows
//! nothing of the layer around it.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use super::kv_cache::LayerCache;
use super::norm::Norm;
use super::products::rounded;
use super::projection::Projection;
use super::rotation::Rotation;
use crate::compute::Precision;
use crate::model::{LayerConfig, ModelConfig};

/// Grouped-query attention: `num_key_value_heads` keys and values, each shared by a group of query
/// heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// `hidden_size` to `num_attention_heads * head_dim`; `None` where projections are fused.
    pub q_proj: Option<Projection>,
    /// `hidden_size` to `num_key_value_heads * head_dim`; `None` where projections are fused.
    pub k_proj: Option<Projection>,
    /// `hidden_size` to `num_key_value_heads * head_dim`; `None` where projections are fused.
    pub v_proj: Option<Projection>,
    /// Queries, keys and values beside each other, in families that fuse them.
    pub qkv_proj: Option<Projection>,
    /// `num_attention_heads * head_dim` to `hidden_size`.
    pub o_proj: Projection,
    /// Over each head of the queries or all of them, in some families.
    pub q_norm: Option<Norm>,
    /// Over each head of the keys or all of them, in some families.
    pub k_norm: Option<Norm>,
    #[module(skip)]
    shape: AttentionShape,
}

/// The sizes of an attention, and how its scores are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) head_dim: usize,
    /// Whether queries and keys are rotated by their positions.
    pub(crate) rotary: bool,
    /// Which of the decoder's rotations it uses.
    pub(crate) rope: usize,
    /// How far a position sees; [`usize::MAX`] when it sees all before it.
    pub(crate) window: usize,
    /// The factor of scores.
    pub(crate) scale: f64,
    /// Scores become `cap · tanh(score / cap)`.
    pub(crate) cap: Option<f64>,
}

impl Attention {
    /// The attention of a layer, with parameters made at their first use.
    pub(crate) fn unfilled(config: &ModelConfig, layer: &LayerConfig, device: &Device) -> Self {
        let shape = AttentionShape {
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            rotary: layer.rotary,
            rope: usize::from(config.local_rope.is_some() && layer.sliding_window.is_some()),
            window: layer.sliding_window.unwrap_or(usize::MAX),
            scale: config.attention_multiplier,
            cap: config.attn_logit_softcapping,
        };
        let (queries, keys) = (shape.query_width(), shape.key_width());
        let linear = |to: usize| Projection::unfilled(config.hidden_size, to, config.qkv_bias, device);
        let separate = |to: usize| (!config.fused_projections).then(|| linear(to));
        let norms = config.qk_norm.map(|norm| norm.widths([queries, keys], config.head_dim));
        let norm = |of: usize| norms.map(|widths| Norm::unfilled(widths[of], config.rms_norm_eps, config.norm_offset, device));
        Self {
            q_proj: separate(queries),
            k_proj: separate(keys),
            v_proj: separate(keys),
            qkv_proj: config.fused_projections.then(|| linear(shape.qkv_width())),
            o_proj: Projection::unfilled(queries, config.hidden_size, config.o_bias, device),
            q_norm: norm(0),
            k_norm: norm(1),
            shape,
        }
    }

    /// Its sizes.
    pub(crate) fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// The projections to queries, keys and values, in this order.
    pub(crate) fn inputs(&self) -> Vec<&Projection> {
        [&self.q_proj, &self.k_proj, &self.v_proj, &self.qkv_proj].into_iter().flatten().collect()
    }

    /// Queries, keys and values.
    ///
    /// # Shapes
    /// - x: `[rows, length, hidden_size]`
    /// - output: `[rows, length, width]` each
    fn project(&self, x: &Tensor<3>) -> [Tensor<3>; 3] {
        let outputs: Vec<Tensor<3>> = self.inputs().into_iter().map(|projection| projection.forward(x.clone())).collect();
        outputs.try_into().unwrap_or_else(|outputs: Vec<Tensor<3>>| {
            let all = Tensor::cat(outputs, 2);
            let (queries, keys) = (self.shape.query_width(), self.shape.key_width());
            [(0, queries), (queries, keys), (queries + keys, keys)].map(|(first, width)| all.clone().narrow(2, first, width))
        })
    }

    /// # Shapes
    /// - x, output: `[rows, length, hidden_size]`
    /// - bias: `[rows or 1, 1, 1, length, keys]`
    pub(crate) fn forward(&self, x: Tensor<3>, rotation: &Rotation, bias: Option<&Tensor<5>>, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let [rows, length, _] = x.dims();
        let AttentionShape { head_dim, scale, cap, .. } = self.shape;
        let split = |x: Tensor<3>, width: usize| -> Tensor<4> {
            let parts = x.dims()[2] / width;
            x.reshape([rows, length, parts, width])
        };
        let place = |x: Tensor<3>, norm: Option<&Norm>| {
            let heads = match norm {
                Some(norm) => {
                    let [width] = norm.gamma.val().dims();
                    let normed = norm.forward(split(x, width));
                    if width == head_dim { normed } else { split(normed.flatten(2, 3), head_dim) }
                }
                None => split(x, head_dim),
            };
            let heads = if self.shape.rotary { rotation.apply(heads) } else { heads };
            heads.swap_dims(1, 2)
        };
        let [queries, keys, values] = self.project(&x);
        let queries = place(queries, self.q_norm.as_ref());
        let keys = place(keys, self.k_norm.as_ref());
        let values = split(values, head_dim).swap_dims(1, 2);
        let (keys, values) = match cache {
            // Keys and values are kept in bf16.
            Some(cache) if self.o_proj.precision() == Precision::Bf16 => cache.append(rounded(keys), rounded(values)),
            Some(cache) => cache.append(keys, values),
            None => (keys, values),
        };

        let [_, heads, ..] = queries.dims();
        let [_, shared, seen, _] = keys.dims();
        let group = heads / shared;
        // Queries with the same key stand under each other: one product a key head serves its whole
        // group.
        let queries = queries.mul_scalar(scale).reshape([rows, shared, group * length, head_dim]);
        let mut scores = queries.matmul(keys.transpose());
        if let Some(cap) = cap {
            scores = (scores / cap).tanh() * cap;
        }
        if let Some(bias) = bias {
            let separate: Tensor<5> = scores.reshape([rows, shared, group, length, seen]);
            scores = (separate + bias.clone()).reshape([rows, shared, group * length, seen]);
        }
        let mixed: Tensor<4> = softmax(scores, 3).matmul(values).reshape([rows, heads, length, head_dim]);
        self.o_proj.forward(mixed.swap_dims(1, 2).reshape([rows, length, heads * head_dim]))
    }
}

impl AttentionShape {
    pub(crate) fn query_width(self) -> usize {
        self.heads * self.head_dim
    }

    pub(crate) fn key_width(self) -> usize {
        self.key_value_heads * self.head_dim
    }

    pub(crate) fn qkv_width(self) -> usize {
        self.query_width() + 2 * self.key_width()
    }
}
