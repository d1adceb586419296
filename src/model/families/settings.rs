//! `config.json` key by key, and the settings common to all families. Knows no family.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::padding::padding_row;
use crate::model::config::{Activation, LARGEST_DIMENSION, LayerConfig, LayerNorms, MOST_LAYERS, ModelConfig};
use crate::model::generation_config::TokenIds;
use crate::model::head::Head;
use crate::model::rope::Rope;

/// The keys of a `config.json`.
pub(super) struct Settings<'a>(&'a Map<String, Value>);

/// A family's defaults.
pub(super) struct Defaults {
    /// `None`: as many as query heads.
    pub(super) num_key_value_heads: Option<usize>,
    /// `None`: `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    pub(super) max_position_embeddings: usize,
    pub(super) tie_word_embeddings: bool,
    pub(super) rope_theta: f64,
}

impl<'a> Settings<'a> {
    pub(super) fn new(config: &'a Value) -> Result<Self, String> {
        config.as_object().map(Self).ok_or_else(|| "expected an object".to_string())
    }

    /// The keys of an object inside.
    pub(super) fn of(keys: &'a Map<String, Value>) -> Self {
        Self(keys)
    }

    /// The value of a setting; `None` where it is left out or null.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        self.get_or(name, None)
    }

    /// The value of a setting, `default` where it is left out; null is a value of its own if `T`
    /// can be that.
    pub(super) fn get_or<T: DeserializeOwned>(&self, name: &str, default: T) -> Result<T, String> {
        self.0.get(name).map_or(Ok(default), |value| T::deserialize(value).map_err(|error| format!("{name}: {error}")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.get(name)?.unwrap_or(false))
    }

    pub(super) fn size(&self, name: &str, default: Option<usize>) -> Result<usize, String> {
        self.size_up_to(LARGEST_DIMENSION, name, default)
    }

    fn size_up_to(&self, most: usize, name: &str, default: Option<usize>) -> Result<usize, String> {
        let size = self.get(name)?.or(default).ok_or_else(|| format!("{name} is missing"))?;
        if size == 0 || size > most {
            return Err(format!("{name} is {size}, expected 1 to {most}"));
        }
        Ok(size)
    }

    /// The longest sequence the model was made for.
    pub(super) fn context(&self, defaults: &Defaults) -> Result<usize, String> {
        self.size("max_position_embeddings", Some(defaults.max_position_embeddings))
    }

    /// The model without what makes its family special, with the positions and the activation of
    /// its family.
    pub(super) fn model_with(&self, defaults: &Defaults, rope: Rope, activation: Activation) -> Result<ModelConfig, String> {
        self.check_supported()?;
        let hidden_size = self.size("hidden_size", None)?;
        let num_attention_heads = self.size("num_attention_heads", None)?;
        let num_key_value_heads = match self.get_or("num_key_value_heads", defaults.num_key_value_heads)? {
            Some(_) => self.size("num_key_value_heads", defaults.num_key_value_heads)?,
            None => num_attention_heads,
        };
        let head_dim = self.size("head_dim", Some(defaults.head_dim.unwrap_or(hidden_size / num_attention_heads)))?;
        let layer = LayerConfig { rotary: true, sliding_window: None, routed: false };
        let vocab_size = self.size("vocab_size", None)?;
        Ok(ModelConfig {
            family: "",
            head: Head::CausalLm,
            vocab_size,
            padding_row: padding_row(self.0, vocab_size),
            hidden_size,
            intermediate_size: self.size("intermediate_size", None)?,
            experts: None,
            layers: vec![layer; self.size_up_to(MOST_LAYERS, "num_hidden_layers", None)?],
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: None,
            fused_projections: false,
            layer_norms: LayerNorms::Before,
            norm_offset: 0.0,
            activation,
            attention_multiplier: (head_dim as f64).powf(-0.5),
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            logits_scaling: 1.0,
            embedding_multiplier: 1.0,
            residual_multiplier: 1.0,
            max_position_embeddings: self.context(defaults)?,
            rms_norm_eps: self.get("rms_norm_eps")?.unwrap_or(1e-6),
            rope,
            local_rope: None,
            tie_word_embeddings: self.get("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings),
            initializer_range: self.get("initializer_range")?.unwrap_or(0.02),
            bos_token_id: self.get("bos_token_id")?,
            eos_token_ids: self.get::<TokenIds>("eos_token_id")?.map(TokenIds::into_vec).unwrap_or_default(),
        })
    }

    /// Settings of transformers for every family.
    fn check_supported(&self) -> Result<(), String> {
        if self.get("is_causal")? == Some(false) {
            return Err("is_causal is false, but only causal attention is supported".to_string());
        }
        match self.get::<Value>("quantization_config")? {
            Some(_) => {
                Err("quantization_config: quantized weights are not supported; use the model's f32, bf16 or f16 weights".to_string())
            }
            None => Ok(()),
        }
    }

    /// How many experts a routed layer has: `num_local_experts` as transformers 5 writes it for all
    /// families, or `num_experts` as earlier ones do for some.
    pub(super) fn experts(&self, default: usize) -> Result<usize, String> {
        let [new, old] = ["num_local_experts", "num_experts"].map(|name| self.get::<usize>(name));
        match (new?, old?) {
            (Some(new), Some(old)) if new != old => {
                Err(format!("num_local_experts is {new}, but num_experts says {old}; expected one value"))
            }
            (None, Some(_)) => self.size("num_experts", None),
            _ => self.size("num_local_experts", Some(default)),
        }
    }

    /// The activation of the gates under its key.
    pub(super) fn activation(&self, name: &str, default: Activation) -> Result<Activation, String> {
        match self.get::<String>(name)?.as_deref() {
            None => Ok(default),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => Err(format!("{name} is {other}; supported: silu, gelu_pytorch_tanh")),
        }
    }

    /// The window of attention in tokens, the query's own included; `None` when it is null.
    pub(super) fn sliding_window(&self, default: Option<usize>) -> Result<Option<usize>, String> {
        match self.get_or("sliding_window", default)? {
            Some(0) => Err("sliding_window is 0, expected 1 or more, or null for none".to_string()),
            window => Ok(window),
        }
    }

    /// The window of each layer as `layer_types` says, or `None` when it does not.
    pub(super) fn layer_windows(&self, layers: usize, window: Option<usize>) -> Result<Option<Vec<Option<usize>>>, String> {
        let Some(types) = self.get::<Vec<String>>("layer_types")? else { return Ok(None) };
        if types.len() != layers {
            return Err(format!("layer_types has {} entries, expected one a layer ({layers})", types.len()));
        }
        let windows = types.iter().map(|kind| match (kind.as_str(), window) {
            ("full_attention", _) => Ok(None),
            ("sliding_attention", Some(window)) => Ok(Some(window)),
            ("sliding_attention", None) => Err("layer_types has sliding_attention, but there is no sliding window in use".to_string()),
            (other, _) => Err(format!("layer_types has {other}; supported: full_attention, sliding_attention")),
        });
        windows.collect::<Result<_, _>>().map(Some)
    }

    /// Gives a window to the layers that `layer_types` names, or else to all but every
    /// `pattern`th.
    pub(super) fn give_pattern(&self, model: &mut ModelConfig, window: Option<usize>, pattern: usize) -> Result<(), String> {
        if pattern == 0 {
            return Err("sliding_window_pattern is 0, expected 1 or more".to_string());
        }
        if window.is_none() {
            return Err("sliding_window is null, expected a number of tokens".to_string());
        }
        let layers = model.layers.len();
        let usual = || (1..=layers).map(|layer| window.filter(|_| !layer.is_multiple_of(pattern))).collect();
        let windows = self.layer_windows(layers, window)?.unwrap_or_else(usual);
        for (layer, window) in model.layers.iter_mut().zip(windows) {
            layer.sliding_window = window;
        }
        Ok(())
    }
}
