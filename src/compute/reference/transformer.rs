//! The transformer. Fields bear the names of the Hugging Face checkpoint's keys, and their order is
//! the order of the parameters.
//!
//! Pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and SwiGLU (Touvron et
//! al. 2023, arXiv 2302.13971; Ainslie et al. 2023, arXiv 2305.13245), and what families add to it:
//! biases, windows (Jiang et al. 2023, arXiv 2310.06825), norms of queries and keys, norms behind
//! attention and MLP, capped scores and logits (Gemma Team 2024, arXiv 2408.00118), factors, and
//! routed experts. Runs plain or with autodiff, with or without a cache; knows nothing of families,
//! losses, sampling or other ways to compute it.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::attention::Attention;
use super::kv_cache::{KvCache, LayerCache};
use super::mlp::{FusedMlp, Mlp, MlpProjections};
use super::norm::Norm;
use super::placement::Placement;
use super::products::{factor, rounding_derivatives};
use super::projection::Projection;
use super::rotation::Rotation;
use super::routed::RoutedMlp;
use crate::compute::Precision;
use crate::model::{LayerConfig, ModelConfig, RopeTable};

/// A causal language model.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// Everything below the logits.
    pub model: Decoder,
    /// `hidden_size` to `vocab_size`; `None` when the embedding's weights are used
    /// (`tie_word_embeddings`).
    pub lm_head: Option<Projection>,
    #[module(skip)]
    logits: LogitRule,
}

/// From products of hidden states and the head's weights to logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitRule {
    /// The factor of the products.
    pub scale: f64,
    /// Scaled products become `cap · tanh(product / cap)`.
    pub cap: Option<f64>,
}

impl LogitRule {
    /// Products are logits.
    pub(crate) const PLAIN: Self = Self { scale: 1.0, cap: None };

    pub(crate) fn apply<const D: usize>(self, products: Tensor<D>) -> Tensor<D> {
        let scaled = if self.scale == 1.0 { products } else { products * self.scale };
        match self.cap {
            Some(cap) => (scaled / cap).tanh() * cap,
            None => scaled,
        }
    }

    /// The derivatives of `logits` by the products; `None` where they are 1.
    pub(crate) fn slopes<const D: usize>(self, logits: &Tensor<D>) -> Option<Tensor<D>> {
        match self.cap {
            Some(cap) => Some(((logits.clone() / cap).square() * -1.0 + 1.0) * self.scale),
            None if self.scale == 1.0 => None,
            None => Some(logits.ones_like() * self.scale),
        }
    }
}

/// Embedding, layers and the last norm.
#[derive(Module, Debug)]
pub struct Decoder {
    /// One row a token of the vocabulary.
    pub embed_tokens: Embedding,
    /// First to last.
    pub layers: Vec<Layer>,
    /// Over the last layer's output.
    pub norm: Norm,
    /// The rotations of the layers: those of all layers, or of those without a window and of those
    /// with one.
    #[module(skip)]
    ropes: Vec<RopeTable>,
    embedding_multiplier: f64,
    /// See [`ModelConfig::padding_row`].
    #[module(skip)]
    padding_row: Option<usize>,
    #[module(skip)]
    precision: Precision,
}

/// Attention and MLP, each between norms and added to the residual stream.
#[derive(Module, Debug)]
pub struct Layer {
    /// Mixes positions.
    pub self_attn: Attention,
    /// Works on each position alone; `None` in a layer with one of the next two.
    pub mlp: Option<Mlp>,
    /// In place of the MLP where projections are fused, under its name.
    pub fused_mlp: Option<FusedMlp>,
    /// In place of the MLP, in some families, under its name.
    pub routed: Option<RoutedMlp>,
    /// Before the attention.
    pub input_layernorm: Option<Norm>,
    /// Before the MLP, or behind the attention in families with norms there.
    pub post_attention_layernorm: Norm,
    /// Before the MLP, where the norm above stands behind the attention.
    pub pre_feedforward_layernorm: Option<Norm>,
    /// Behind the MLP, in some families.
    pub post_feedforward_layernorm: Option<Norm>,
    residual_multiplier: f64,
}

/// A part of a layer: its norms before and behind, if it has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norms<'a> {
    pub(crate) before: Option<&'a Norm>,
    pub(crate) behind: Option<&'a Norm>,
}

impl CausalLm {
    /// A model with parameters made at their first use; a checkpoint gives them their values
    /// before.
    pub(crate) fn unfilled(config: &ModelConfig, device: &Device) -> Self {
        let lm_head = || Projection::unfilled(config.hidden_size, config.vocab_size, false, device);
        Self {
            model: Decoder::unfilled(config, device),
            lm_head: (!config.tie_word_embeddings).then(lm_head),
            logits: LogitRule { scale: 1.0 / config.logits_scaling, cap: config.final_logit_softcapping },
        }
    }

    /// The device the parameters are on; it carries autodiff when they do.
    pub fn device(&self) -> Device {
        self.model.device()
    }

    /// The same model, computed in this precision: F32 unless it is changed here.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.model.set_precision(precision);
        self.lm_head.iter_mut().for_each(|head| head.set_precision(precision));
        self
    }

    /// The precision of its products.
    pub fn precision(&self) -> Precision {
        self.model.precision
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

    /// From products with the head's weights to logits.
    pub(crate) fn logit_rule(&self) -> LogitRule {
        self.logits
    }

    /// The logits of chosen hidden states; ask only for the positions that are needed.
    ///
    /// # Shapes
    /// - hidden: `[.., hidden_size]`
    /// - output: `[.., vocab_size]`
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let products = match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden),
            None => {
                let embedding = self.model.embed_tokens.weight.val();
                let [vocab_size, hidden_size] = embedding.dims();
                let mut shape = hidden.shape();
                shape[D - 1] = vocab_size;
                let precision = self.precision();
                let hidden: Tensor<2> = factor(precision, hidden.reshape([-1, hidden_size as i64]));
                let embedding = factor(precision, embedding);
                // The weights as the left factor: as the right one their transposed view is read
                // many times slower on the CPU.
                rounding_derivatives(precision, embedding.matmul(hidden.transpose())).transpose().reshape(shape)
            }
        };
        self.logits.apply(products)
    }
}

impl Decoder {
    /// A decoder with parameters made at their first use; a checkpoint gives them their values
    /// before.
    pub(crate) fn unfilled(config: &ModelConfig, device: &Device) -> Self {
        let norm = || Norm::unfilled(config.hidden_size, config.rms_norm_eps, config.norm_offset, device);
        let named = |name: &str| config.layer_norms.names().contains(&name).then(norm);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let fused = config.fused_projections;
        let layer = |layer: &LayerConfig| Layer {
            self_attn: Attention::unfilled(config, layer, device),
            mlp: (!fused && !layer.routed).then(|| Mlp::unfilled(hidden, inner, config.mlp_bias, config.activation, device)),
            fused_mlp: (fused && !layer.routed).then(|| FusedMlp::unfilled(hidden, inner, config.mlp_bias, config.activation, device)),
            routed: config.experts.as_ref().filter(|_| layer.routed).map(|experts| RoutedMlp::unfilled(config, experts, device)),
            input_layernorm: named("input_layernorm"),
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: named("pre_feedforward_layernorm"),
            post_feedforward_layernorm: named("post_feedforward_layernorm"),
            residual_multiplier: config.residual_multiplier,
        };
        let ropes = std::iter::once(&config.rope).chain(&config.local_rope);
        Self {
            embed_tokens: EmbeddingConfig::new(config.vocab_size, config.hidden_size).init(device),
            layers: config.layers.iter().map(layer).collect(),
            norm: norm(),
            ropes: ropes.map(|rope| rope.table(config.head_dim)).collect(),
            embedding_multiplier: config.embedding_multiplier,
            padding_row: config.padding_row,
            precision: Precision::F32,
        }
    }

    /// The rotations of the layers, see [`AttentionShape::rope`](super::attention::AttentionShape).
    pub(crate) fn ropes(&self) -> &[RopeTable] {
        &self.ropes
    }

    /// The factor of the embeddings.
    pub(crate) fn embedding_multiplier(&self) -> f64 {
        self.embedding_multiplier
    }

    /// The row of the embedding that gets no gradient where it is looked up.
    pub(crate) fn padding_row(&self) -> Option<usize> {
        self.padding_row
    }

    /// Rows `x` of the embedding, looked up by `tokens`: that of padding passes no gradient back.
    ///
    /// # Shapes
    /// - x, output: `[tokens, hidden_size]`
    /// - tokens: `[tokens]`
    pub(crate) fn without_padding_gradient(&self, x: Tensor<2>, tokens: Tensor<1, Int>) -> Tensor<2> {
        match self.padding_row {
            Some(row) if self.embed_tokens.weight.is_require_grad() => {
                let is_padding: Tensor<2, Bool> = tokens.equal_elem(row as i64).unsqueeze_dim(1);
                let is_padding = is_padding.expand(x.dims());
                x.clone().mask_where(is_padding, x.detach())
            }
            _ => x,
        }
    }

    /// The device the parameters are on; it carries autodiff when they do.
    pub(crate) fn device(&self) -> Device {
        self.norm.gamma.val().device()
    }

    /// The precision of its products.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
        self.projections_mut().for_each(|(_, projection)| projection.set_precision(precision));
        let routed = self.layers.iter_mut().filter_map(|layer| layer.routed.as_mut());
        routed.for_each(|routed| routed.gate.precision = precision);
    }

    /// Hidden states after the last norm.
    ///
    /// # Shapes
    /// - tokens: `[rows, length]`
    /// - output: `[rows, length, hidden_size]`
    pub(crate) fn forward(&self, tokens: Tensor<2, Int>, placement: &Placement, cache: Option<&mut KvCache>) -> Tensor<3> {
        let rotations: Vec<Rotation> = self.ropes.iter().map(|table| Rotation::new(placement.positions.clone(), table)).collect();
        let mut biases: BTreeMap<usize, Option<Tensor<5>>> = BTreeMap::new();
        let mut caches = cache.map(|cache| cache.layers_mut().iter_mut());
        let embedded = self.embed_tokens.forward(tokens.clone());
        let shape = embedded.dims();
        let embedded = self.without_padding_gradient(embedded.flatten(0, 1), tokens.flatten(0, 1));
        let mut x = scaled(embedded.reshape(shape), self.embedding_multiplier);
        for layer in &self.layers {
            let shape = layer.self_attn.shape();
            let reach = placement.reach(shape.window);
            let bias = biases.entry(reach).or_insert_with(|| placement.bias(reach));
            x = layer.forward(x, &rotations[shape.rope], bias.as_ref(), caches.as_mut().and_then(Iterator::next));
        }
        self.norm.forward(x)
    }
}

impl Layer {
    /// The norms of the attention.
    pub(crate) fn attention_norms(&self) -> Norms<'_> {
        let behind = self.post_feedforward_layernorm.as_ref().map(|_| &self.post_attention_layernorm);
        Norms { before: self.input_layernorm.as_ref(), behind }
    }

    /// The norms of the MLP.
    pub(crate) fn mlp_norms(&self) -> Norms<'_> {
        match &self.post_feedforward_layernorm {
            Some(behind) => Norms { before: self.pre_feedforward_layernorm.as_ref(), behind: Some(behind) },
            None => Norms { before: Some(&self.post_attention_layernorm), behind: None },
        }
    }

    /// The projections of the MLP, if it is one.
    pub(crate) fn mlp_projections(&self) -> Option<MlpProjections<'_>> {
        self.mlp.as_ref().map(Mlp::projections).or_else(|| self.fused_mlp.as_ref().map(FusedMlp::projections))
    }

    /// The factor of all that is added to the residual stream.
    pub(crate) fn residual_multiplier(&self) -> f64 {
        self.residual_multiplier
    }

    /// # Shapes
    /// - x, output: `[rows, length, hidden_size]`
    /// - bias: `[rows or 1, 1, 1, length, keys]`
    fn forward(&self, x: Tensor<3>, rotation: &Rotation, bias: Option<&Tensor<5>>, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let x = self.add(self.attention_norms(), x, |x| self.self_attn.forward(x, rotation, bias, cache));
        self.add(self.mlp_norms(), x, |x| match (&self.mlp, &self.fused_mlp, &self.routed) {
            (Some(mlp), ..) => mlp.forward(x),
            (None, Some(mlp), _) => mlp.forward(x),
            (None, None, Some(routed)) => routed.forward(x),
            // No layer is without all of them.
            (None, None, None) => x,
        })
    }

    /// Adds a part between its norms to the residual stream.
    fn add(&self, norms: Norms<'_>, x: Tensor<3>, part: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        let normed = |norm: Option<&Norm>, x: Tensor<3>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let change = normed(norms.behind, part(normed(norms.before, x.clone())));
        x + scaled(change, self.residual_multiplier)
    }
}

fn scaled(x: Tensor<3>, factor: f64) -> Tensor<3> {
    if factor == 1.0 { x } else { x * factor }
}
