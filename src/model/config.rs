//! `config.json` and `generation_config.json` of a Hugging Face checkpoint. Knows nothing of weights or files.
//!
//! Only what this crate computes is accepted: a setting that would silently change the logits is an error, never ignored.

use serde::Deserialize;
use serde_json::Value;

use super::head::{self, Head};

/// The families the `transformer` module computes, as the names of architectures begin.
const FAMILIES: [&str; 1] = ["Llama"];

/// No dimension of a model in use comes near this; beyond it a `config.json` is taken to be broken.
const LARGEST_DIMENSION: usize = 1 << 24;

/// The shape of a model, with the field names and defaults of Hugging Face's `LlamaConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// What stands on top of the transformer.
    pub head: Head,
    /// Rows of the embedding, and logits a position.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; `hidden_size / num_attention_heads` unless given.
    pub head_dim: usize,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Whether the logits are computed with the embedding's weights instead of a `lm_head`.
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// The token that starts a sequence.
    pub bos_token_id: Option<i32>,
    /// The tokens that end a sequence.
    pub eos_token_ids: Vec<i32>,
}

/// `config.json` as it may be written; what is `None` has a default or is an error.
#[derive(Deserialize)]
struct Written {
    architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    tie_word_embeddings: Option<bool>,
    initializer_range: Option<f64>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    bos_token_id: Option<i32>,
    eos_token_id: Option<TokenIds>,
}

/// `rope_parameters` (transformers 5) or `rope_scaling` (before).
#[derive(Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
}

/// One token id, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(i32),
    Several(Vec<i32>),
}

impl TokenIds {
    fn into_vec(self) -> Vec<i32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// A sentence without the file's name: another architecture, a missing or absurd size, or a setting that is not supported
    /// (rotary scaling, biases, another activation).
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let written = Written::deserialize(json).map_err(|error| error.to_string())?;
        check_supported(&written)?;
        let head = architecture(&written)?;
        if head == Head::Reward
            && let Some(labels) = head::labels(json).filter(|labels| *labels != 1)
        {
            return Err(format!("expected a classifier with 1 label, its score being the reward; found {labels} (num_labels, id2label)"));
        }
        let size = |value: Option<usize>, name: &str| value.ok_or_else(|| format!("{name} is missing"));
        let hidden_size = size(written.hidden_size, "hidden_size")?;
        let num_attention_heads = size(written.num_attention_heads, "num_attention_heads")?;
        let rope_theta = written.rope_theta.or(written.rope_parameters.and_then(|rope| rope.rope_theta));
        let config = Self {
            head,
            vocab_size: size(written.vocab_size, "vocab_size")?,
            hidden_size,
            intermediate_size: size(written.intermediate_size, "intermediate_size")?,
            num_hidden_layers: size(written.num_hidden_layers, "num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: written.num_key_value_heads.unwrap_or(num_attention_heads),
            head_dim: written.head_dim.unwrap_or(hidden_size / num_attention_heads.max(1)),
            max_position_embeddings: written.max_position_embeddings.unwrap_or(2048),
            rms_norm_eps: written.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope_theta.unwrap_or(10_000.0),
            tie_word_embeddings: written.tie_word_embeddings.unwrap_or(false),
            initializer_range: written.initializer_range.unwrap_or(0.02),
            bos_token_id: written.bos_token_id,
            eos_token_ids: written.eos_token_id.map(TokenIds::into_vec).unwrap_or_default(),
        };
        config.check_sizes()?;
        Ok(config)
    }

    fn check_sizes(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, size) in sizes {
            if size == 0 || size > LARGEST_DIMENSION {
                return Err(format!("{name} is {size}, expected 1 to {LARGEST_DIMENSION}"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(format!(
                "num_attention_heads ({}) is not a multiple of num_key_value_heads ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("head_dim is {}, expected an even number (rotary positions turn pairs)", self.head_dim));
        }
        let positive =
            [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta), ("initializer_range", self.initializer_range)];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{name} is {value}, expected a positive number"));
            }
        }
        Ok(())
    }
}

/// The head of the first architecture that is supported.
fn architecture(written: &Written) -> Result<Head, String> {
    let architectures = written.architectures.as_deref().unwrap_or_default();
    let known = |head: Head| FAMILIES.map(|family| format!("{family}{}", head.suffix()));
    let find = |head: Head| architectures.iter().any(|name| known(head).contains(name)).then_some(head);
    find(Head::CausalLm).or_else(|| find(Head::Reward)).ok_or_else(|| {
        let found = if architectures.is_empty() { "none".to_string() } else { architectures.join(", ") };
        format!("architectures is {found}; supported: {}, {}", known(Head::CausalLm).join(", "), known(Head::Reward).join(", "))
    })
}

/// Refuses what the transformer would compute differently from the checkpoint's own code.
fn check_supported(written: &Written) -> Result<(), String> {
    for (name, rope) in [("rope_scaling", &written.rope_scaling), ("rope_parameters", &written.rope_parameters)] {
        if let Some(kind) = rope.as_ref().and_then(|rope| rope.rope_type.as_deref()).filter(|kind| *kind != "default") {
            return Err(format!("{name} of type {kind} is not supported; supported: default (no scaling)"));
        }
    }
    if written.attention_bias == Some(true) {
        return Err("attention_bias is true, which is not supported".to_string());
    }
    if written.mlp_bias == Some(true) {
        return Err("mlp_bias is true, which is not supported".to_string());
    }
    match written.hidden_act.as_deref() {
        None | Some("silu") => Ok(()),
        Some(other) => Err(format!("hidden_act is {other}; supported: silu")),
    }
}

/// What `generation_config.json` says about ending a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// The tokens that end a response; any of them does.
    pub eos_token_ids: Vec<i32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; where it is absent or names no end, `config`'s ends are used.
    ///
    /// # Errors
    /// A sentence without the file's name, when an id is not an integer or not in the vocabulary.
    pub fn from_json(json: Option<&Value>, config: &ModelConfig) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        struct Written {
            eos_token_id: Option<TokenIds>,
        }
        let written = match json {
            Some(json) => Written::deserialize(json).map_err(|error| error.to_string())?,
            None => Written::default(),
        };
        let eos_token_ids = written.eos_token_id.map_or_else(|| config.eos_token_ids.clone(), TokenIds::into_vec);
        match eos_token_ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < config.vocab_size)) {
            Some(outside) => Err(format!("eos_token_id is {outside}, expected a token from 0 to {}", config.vocab_size - 1)),
            None => Ok(Self { eos_token_ids }),
        }
    }
}
