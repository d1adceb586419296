//! The shape of a model, said in one way for all families. Knows nothing of weights, files or
//! `config.json`.

use super::experts::ExpertsConfig;
use super::head::Head;
use super::rope::Rope;

/// No dimension of a model in use comes near this; beyond it a `config.json` is taken to be broken.
pub(super) const LARGEST_DIMENSION: usize = 1 << 24;
/// As for dimensions: the deepest models have a few hundred.
pub(super) const MOST_LAYERS: usize = 1 << 12;
/// As for dimensions: two million million numbers are 8 TB.
const MOST_PARAMETERS: u128 = 1 << 41;

/// The shape of a model. Where Hugging Face's configuration classes have a name for something, the
/// field has it too.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family's name, as architectures begin in Hugging Face's words.
    pub family: &'static str,
    /// The head on top of the transformer.
    pub head: Head,
    /// Rows of the embedding, and logits a position.
    pub vocab_size: usize,
    /// The row of the embedding for padding. Looked up, it gets no gradient in training, wherever
    /// its token stands: PyTorch's embeddings are made so by transformers.
    pub padding_row: Option<usize>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// The experts of the layers with [`LayerConfig::routed`].
    pub experts: Option<ExpertsConfig>,
    /// The differences between the decoder layers, first to last.
    pub layers: Vec<LayerConfig>,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the projection behind the attention has a bias.
    pub o_bias: bool,
    /// Whether the projections of the MLP have biases.
    pub mlp_bias: bool,
    /// The norm of queries and keys before they are rotated, in some families.
    pub qk_norm: Option<QkNorm>,
    /// Whether one projection `qkv_proj` has queries, keys and values, and one `gate_up_proj` has
    /// gates and ups.
    pub fused_projections: bool,
    /// Where the norms of a layer stand.
    pub layer_norms: LayerNorms,
    /// Added to the weights of norms: 1 in Gemma, else 0.
    pub norm_offset: f64,
    /// The activation of the MLP's gates.
    pub activation: Activation,
    /// The factor of the scores of attention: 1 / √head_dim unless a family says otherwise.
    pub attention_multiplier: f64,
    /// Scores of attention become `cap · tanh(score / cap)`.
    pub attn_logit_softcapping: Option<f64>,
    /// Logits become `cap · tanh(logit / cap)`.
    pub final_logit_softcapping: Option<f64>,
    /// The divisor of the logits, before they are capped.
    pub logits_scaling: f64,
    /// The factor of the embeddings.
    pub embedding_multiplier: f64,
    /// The factor of all that attention and MLP add to the residual stream.
    pub residual_multiplier: f64,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// How positions turn into angles.
    pub rope: Rope,
    /// The same for layers with a window, where they differ.
    pub local_rope: Option<Rope>,
    /// Whether the logits are computed with the embedding's weights instead of a `lm_head`.
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// The first token of a sequence.
    pub bos_token_id: Option<i32>,
    /// The end tokens of a sequence.
    pub eos_token_ids: Vec<i32>,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Over each head, with the same weights for all heads.
    EachHead,
    /// Over all heads at once.
    AllHeads,
}

impl QkNorm {
    /// The widths of both norms, from those of queries and keys.
    pub(crate) fn widths(self, queries_keys: [usize; 2], head_dim: usize) -> [usize; 2] {
        match self {
            Self::EachHead => [head_dim; 2],
            Self::AllHeads => queries_keys,
        }
    }
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerNorms {
    /// Before attention and MLP.
    Before,
    /// Behind attention and MLP, before their results are added to the residual stream.
    Behind,
    /// Both.
    Around,
}

impl LayerNorms {
    /// A layer's norms under their names in a checkpoint, in the order of the parameters.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Before => &["input_layernorm", "post_attention_layernorm"],
            Self::Behind => &["post_attention_layernorm", "post_feedforward_layernorm"],
            Self::Around => &["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"],
        }
    }
}

/// The activation of gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x / (1 + e^−x).
    Silu,
    /// GELU with tanh: x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).
    GeluTanh,
}

/// The settings of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// Whether queries and keys are rotated by their positions.
    pub rotary: bool,
    /// How many tokens attention reaches back, the query's own included; `None` when it sees all
    /// before it.
    pub sliding_window: Option<usize>,
    /// Whether a router and its experts stand in place of the MLP.
    pub routed: bool,
}

impl ModelConfig {
    /// Checks the sizes against each other, and the range of numbers.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(format!(
                "num_attention_heads ({}) is not a multiple of num_key_value_heads ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("head_dim is {}, expected an even number (rotary positions turn pairs)", self.head_dim));
        }
        let positive = [
            ("rms_norm_eps", self.rms_norm_eps),
            ("initializer_range", self.initializer_range),
            ("attn_logit_softcapping", self.attn_logit_softcapping.unwrap_or(1.0)),
            ("final_logit_softcapping", self.final_logit_softcapping.unwrap_or(1.0)),
            ("attention_multiplier", self.attention_multiplier),
            ("logits_scaling", self.logits_scaling),
            ("embedding_multiplier", self.embedding_multiplier),
            ("residual_multiplier", self.residual_multiplier),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{name} is {value}, expected a positive number"));
            }
        }
        if let Some(experts) = &self.experts {
            experts.check(self.layers.len())?;
        }
        let count = self.matrix_parameters();
        if count > MOST_PARAMETERS {
            return Err(format!("the sizes make a model of {count} parameters, expected at most {MOST_PARAMETERS}"));
        }
        self.rope.check(self.head_dim)?;
        self.local_rope.as_ref().map_or(Ok(()), |rope| rope.check(self.head_dim))
    }

    /// The longest sequence in tokens, and why it is shorter than the model's context, if it is.
    pub fn longest_sequence(&self) -> (usize, Option<String>) {
        let ropes = [Some(&self.rope), self.local_rope.as_ref()].into_iter().flatten();
        let limits = ropes.filter_map(Rope::limit).filter(|(limit, _)| *limit < self.max_position_embeddings);
        match limits.min_by_key(|(limit, _)| *limit) {
            Some((limit, reason)) => (limit, Some(reason)),
            None => (self.max_position_embeddings, None),
        }
    }

    /// The first setting for which there are no kernels on a GPU, in the words of `config.json`.
    pub fn setting_without_gpu_kernels(&self) -> Option<&'static str> {
        let usual_scale = (self.head_dim as f64).powf(-0.5);
        let settings = [
            (self.experts.is_some(), "routed experts"),
            (self.qk_norm == Some(QkNorm::AllHeads), "norms over all heads of queries and keys"),
            (self.layer_norms != LayerNorms::Before, "norms behind attention and MLP"),
            (self.norm_offset != 0.0, "norms with 1 added to their weights"),
            (self.activation != Activation::Silu, "hidden_activation gelu_pytorch_tanh"),
            (self.attn_logit_softcapping.is_some(), "attn_logit_softcapping"),
            (self.final_logit_softcapping.is_some(), "final_logit_softcapping"),
            (self.attention_multiplier != usual_scale, "attention_multiplier or query_pre_attn_scalar"),
            (self.logits_scaling != 1.0, "logits_scaling"),
            (self.embedding_multiplier != 1.0, "scaled embeddings"),
            (self.residual_multiplier != 1.0, "residual_multiplier"),
            (self.local_rope.is_some(), "other rotary positions in layers with a window"),
            (self.rope.rotated(self.head_dim) != self.head_dim, "partial_rotary_factor"),
            (self.rope.attention_factor() != 1.0, "rope scaling with an attention_factor"),
        ];
        settings.into_iter().find_map(|(found, name)| found.then_some(name))
    }

    /// The parameters of all matrices, by arithmetic alone. No size is above [`LARGEST_DIMENSION`],
    /// so nothing here comes near the end of its type.
    fn matrix_parameters(&self) -> u128 {
        let [vocabulary, hidden, inner, heads, pairs, width] =
            [self.vocab_size, self.hidden_size, self.intermediate_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim]
                .map(|size| size as u128);
        let attention = hidden * width * (2 * heads + 2 * pairs);
        let routed = self.experts.as_ref().map_or(0, |experts| {
            let [count, inner] = [experts.num_experts, experts.moe_intermediate_size].map(|size| size as u128);
            count * hidden * (1 + 3 * inner)
        });
        let layer = |layer: &LayerConfig| attention + if layer.routed { routed } else { 3 * hidden * inner };
        let heads = if self.tie_word_embeddings { 1 } else { 2 };
        self.layers.iter().map(layer).sum::<u128>() + heads * vocabulary * hidden
    }
}
