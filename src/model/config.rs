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
    /// The head on top of the transformer.
    pub head: Head,
    /// Rows of the embedding, and logits a position.
    pub vocab_size: usize,
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
    /// Whether queries and keys pass a norm in each head before they are rotated.
    pub qk_norm: bool,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// How positions turn into angles.
    pub rope: Rope,
    /// Whether the logits are computed with the embedding's weights instead of a `lm_head`.
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// The first token of a sequence.
    pub bos_token_id: Option<i32>,
    /// The end tokens of a sequence.
    pub eos_token_ids: Vec<i32>,
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
        for (name, value) in [("rms_norm_eps", self.rms_norm_eps), ("initializer_range", self.initializer_range)] {
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
        self.rope.check()
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
