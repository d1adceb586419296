//! The transformer. Fields bear the names of the Hugging Face checkpoint's keys, and their order is
//! the order of the parameters.
//!
//! Pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and SwiGLU (Touvron et
//! al. 2023, arXiv 2302.13971; Ainslie et al. 2023, arXiv 2305.13245), and what families add to it:
//! biases, windows (Jiang et al. 2023, arXiv 2310.06825), norms of queries and keys, and routed
//! experts. Runs plain or with autodiff, with or without a cache; knows nothing of families,
//! losses, sampling or other ways to compute it.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};

use super::kv_cache::{KvCache, LayerCache};
use super::mlp::Mlp;
use super::placement::Placement;
use super::projection::Projection;
use super::rotation::Rotation;
use super::routed::RoutedMlp;
use crate::model::{LayerConfig, ModelConfig};

/// A causal language model.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// Everything below the logits.
    pub model: Decoder,
    /// `hidden_size` to `vocab_size`; `None` when the embedding's weights are used
    /// (`tie_word_embeddings`).
    pub lm_head: Option<Projection>,
}

/// Embedding, layers and the last norm.
#[derive(Module, Debug)]
pub struct Decoder {
    /// One row a token of the vocabulary.
    pub embed_tokens: Embedding,
    /// First to last.
    pub layers: Vec<Layer>,
    /// Over the last layer's output.
    pub norm: RmsNorm,
    /// The rotation of each pair of a head, as an angle a position.
    #[module(skip)]
    frequencies: Vec<f32>,
}

/// Attention and MLP, each behind a norm and added to the residual stream.
#[derive(Module, Debug)]
pub struct Layer {
    /// Mixes positions.
    pub self_attn: Attention,
    /// Works on each position alone; `None` in a layer with routed experts.
    pub mlp: Option<Mlp>,
    /// In place of the MLP, in some families.
    pub routed: Option<RoutedMlp>,
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// Before the MLP.
    pub post_attention_layernorm: RmsNorm,
}

/// Grouped-query attention: `num_key_value_heads` keys and values, each shared by a group of query
/// heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// `hidden_size` to `num_attention_heads * head_dim`.
    pub q_proj: Projection,
    /// `hidden_size` to `num_key_value_heads * head_dim`.
    pub k_proj: Projection,
    /// `hidden_size` to `num_key_value_heads * head_dim`.
    pub v_proj: Projection,
    /// `num_attention_heads * head_dim` to `hidden_size`.
    pub o_proj: Projection,
    /// Over each head of the queries, in some families.
    pub q_norm: Option<RmsNorm>,
    /// Over each head of the keys, in some families.
    pub k_norm: Option<RmsNorm>,
    head_dim: usize,
    rotary: bool,
    sliding_window: Option<usize>,
}

impl CausalLm {
    /// A model with parameters made at their first use; a checkpoint gives them their values
    /// before.
    pub(crate) fn unfilled(config: &ModelConfig, device: &Device) -> Self {
        let lm_head = || Projection::unfilled(config.hidden_size, config.vocab_size, false, device);
        Self { model: Decoder::unfilled(config, device), lm_head: (!config.tie_word_embeddings).then(lm_head) }
    }

    /// The device the parameters are on; it carries autodiff when they do.
    pub fn device(&self) -> Device {
        self.model.device()
    }

    /// An empty cache for this model.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(self.model.layers.len())
    }

    /// Hidden states after the last norm. With a cache, `tokens` follow its tokens.
    ///
    /// # Shapes
    /// - tokens: `[rows, length]`, i32, every id below `vocab_size`
    /// - output: `[rows, length, hidden_size]`
    ///
    /// # Panics
    /// When `placement` was made for another shape, or an id is outside the vocabulary.
    pub fn hidden(&self, tokens: Tensor<2, Int>, placement: &Placement, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.model.forward(tokens, placement, cache)
    }

    /// The logits of chosen hidden states; ask only for the positions that are needed.
    ///
    /// # Shapes
    /// - hidden: `[.., hidden_size]`
    /// - output: `[.., vocab_size]`
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden),
            None => {
                let embedding = self.model.embed_tokens.weight.val();
                let [vocab_size, hidden_size] = embedding.dims();
                let mut shape = hidden.shape();
                shape[D - 1] = vocab_size;
                let hidden: Tensor<2> = hidden.reshape([-1, hidden_size as i64]);
                // The weights as the left factor: as the right one their transposed view is read
                // many times slower on the CPU.
                embedding.matmul(hidden.transpose()).transpose().reshape(shape)
            }
        }
    }
}

impl Decoder {
    /// A decoder with parameters made at their first use; a checkpoint gives them their values
    /// before.
    pub(crate) fn unfilled(config: &ModelConfig, device: &Device) -> Self {
        let linear = |from: usize, to: usize, bias: bool| Projection::unfilled(from, to, bias, device);
        let norm_of = |width: usize| RmsNormConfig::new(width).with_epsilon(config.rms_norm_eps).init(device);
        let norm = || norm_of(config.hidden_size);
        let head_norm = || config.qk_norm.then(|| norm_of(config.head_dim));
        let (queries, keys) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        let layer = |layer: &LayerConfig| Layer {
            self_attn: Attention {
                q_proj: linear(config.hidden_size, queries, config.qkv_bias),
                k_proj: linear(config.hidden_size, keys, config.qkv_bias),
                v_proj: linear(config.hidden_size, keys, config.qkv_bias),
                o_proj: linear(queries, config.hidden_size, config.o_bias),
                q_norm: head_norm(),
                k_norm: head_norm(),
                head_dim: config.head_dim,
                rotary: layer.rotary,
                sliding_window: layer.sliding_window,
            },
            mlp: (!layer.routed).then(|| Mlp::unfilled(config.hidden_size, config.intermediate_size, config.mlp_bias, device)),
            routed: config.experts.as_ref().filter(|_| layer.routed).map(|experts| RoutedMlp::unfilled(config, experts, device)),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
        };
        Self {
            embed_tokens: EmbeddingConfig::new(config.vocab_size, config.hidden_size).init(device),
            layers: config.layers.iter().map(layer).collect(),
            norm: norm(),
            frequencies: config.rope.frequencies(config.head_dim),
        }
    }

    /// The rotation of each pair of a head, as an angle a position.
    pub(crate) fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// The device the parameters are on; it carries autodiff when they do.
    pub(crate) fn device(&self) -> Device {
        self.norm.gamma.val().device()
    }

    /// Hidden states after the last norm.
    ///
    /// # Shapes
    /// - tokens: `[rows, length]`
    /// - output: `[rows, length, hidden_size]`
    pub(crate) fn forward(&self, tokens: Tensor<2, Int>, placement: &Placement, cache: Option<&mut KvCache>) -> Tensor<3> {
        let rotation = Rotation::new(placement.positions.clone(), &self.frequencies);
        let mut biases: BTreeMap<usize, Option<Tensor<5>>> = BTreeMap::new();
        let mut caches = cache.map(|cache| cache.layers_mut().iter_mut());
        let mut x = self.embed_tokens.forward(tokens);
        for layer in &self.layers {
            let reach = placement.reach(layer.self_attn.sliding_window);
            let bias = biases.entry(reach).or_insert_with(|| placement.bias(reach));
            x = layer.forward(x, &rotation, bias.as_ref(), caches.as_mut().and_then(Iterator::next));
        }
        self.norm.forward(x)
    }
}

impl Layer {
    /// # Shapes
    /// - x, output: `[rows, length, hidden_size]`
    /// - bias: `[rows or 1, 1, 1, length, keys]`
    fn forward(&self, x: Tensor<3>, rotation: &Rotation, bias: Option<&Tensor<5>>, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(x.clone()), rotation, bias, cache);
        let x = x + attended;
        let normed = self.post_attention_layernorm.forward(x.clone());
        match (&self.mlp, &self.routed) {
            (Some(mlp), _) => x + mlp.forward(normed),
            (None, Some(routed)) => x + routed.forward(normed),
            // No layer is without both.
            (None, None) => x,
        }
    }
}

impl Attention {
    /// Width of one head.
    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Whether queries and keys are rotated by their positions.
    pub(crate) fn is_rotary(&self) -> bool {
        self.rotary
    }

    /// How many tokens attention reaches back; `None` when it sees all before it.
    pub(crate) fn sliding_window(&self) -> Option<usize> {
        self.sliding_window
    }

    /// # Shapes
    /// - x, output: `[rows, length, hidden_size]`
    /// - bias: `[rows or 1, 1, 1, length, keys]`
    fn forward(&self, x: Tensor<3>, rotation: &Rotation, bias: Option<&Tensor<5>>, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let [rows, length, _] = x.dims();
        let split = |x: Tensor<3>| -> Tensor<4> {
            let heads = x.dims()[2] / self.head_dim;
            x.reshape([rows, length, heads, self.head_dim])
        };
        let place = |heads: Tensor<4>, norm: Option<&RmsNorm>| {
            let heads = match norm {
                Some(norm) => norm.forward(heads),
                None => heads,
            };
            let heads = if self.rotary { rotation.apply(heads) } else { heads };
            heads.swap_dims(1, 2)
        };
        let queries = place(split(self.q_proj.forward(x.clone())), self.q_norm.as_ref());
        let keys = place(split(self.k_proj.forward(x.clone())), self.k_norm.as_ref());
        let values = split(self.v_proj.forward(x)).swap_dims(1, 2);
        let (keys, values) = match cache {
            Some(cache) => cache.append(keys, values),
            None => (keys, values),
        };

        let [_, heads, ..] = queries.dims();
        let [_, shared, seen, _] = keys.dims();
        let group = heads / shared;
        // Queries with the same key stand under each other: one product a key head serves its whole
        // group.
        let queries = queries.mul_scalar((self.head_dim as f64).powf(-0.5)).reshape([rows, shared, group * length, self.head_dim]);
        let mut scores = queries.matmul(keys.transpose());
        if let Some(bias) = bias {
            let separate: Tensor<5> = scores.reshape([rows, shared, group, length, seen]);
            scores = (separate + bias.clone()).reshape([rows, shared, group * length, seen]);
        }
        let mixed: Tensor<4> = softmax(scores, 3).matmul(values).reshape([rows, heads, length, self.head_dim]);
        self.o_proj.forward(mixed.swap_dims(1, 2).reshape([rows, length, heads * self.head_dim]))
    }
}

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rotary: bool,
    /// How far a position sees; [`usize::MAX`] when it sees all before it.
    pub(crate) window: usize,
}

impl AttentionShape {
    pub(crate) fn from_attention(attention: &Attention) -> Self {
        let [_, queries] = attention.q_proj.weight.val().dims();
        let [_, keys] = attention.k_proj.weight.val().dims();
        Self::new(attention, queries, keys)
    }

    /// Of an attention with so wide queries and keys.
    pub(crate) fn new(attention: &Attention, queries: usize, keys: usize) -> Self {
        let head_dim = attention.head_dim();
        Self {
            heads: queries / head_dim,
            key_value_heads: keys / head_dim,
            head_dim,
            rotary: attention.is_rotary(),
            window: attention.sliding_window().unwrap_or(usize::MAX),
        }
    }

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
