//! `config.json` key by key, and the settings common to all families. Knows no family.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::config::{LARGEST_DIMENSION, LayerConfig, MOST_LAYERS, ModelConfig};
use crate::model::generation_config::TokenIds;
use crate::model::head::Head;
use crate::model::rope::{Llama3Scaling, Rope};

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

    /// The model without what makes its family special: no biases, no norms of queries and keys,
    /// every layer with rotary positions and without a window. The head is the caller's to set.
    pub(super) fn model(&self, defaults: &Defaults) -> Result<ModelConfig, String> {
        self.check_supported()?;
        let hidden_size = self.size("hidden_size", None)?;
        let num_attention_heads = self.size("num_attention_heads", None)?;
        let num_key_value_heads = match self.get_or("num_key_value_heads", defaults.num_key_value_heads)? {
            Some(_) => self.size("num_key_value_heads", defaults.num_key_value_heads)?,
            None => num_attention_heads,
        };
        let max_position_embeddings = self.size("max_position_embeddings", Some(defaults.max_position_embeddings))?;
        let layer = LayerConfig { rotary: true, sliding_window: None, routed: false };
        Ok(ModelConfig {
            head: Head::CausalLm,
            vocab_size: self.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: self.size("intermediate_size", None)?,
            experts: None,
            layers: vec![layer; self.size_up_to(MOST_LAYERS, "num_hidden_layers", None)?],
            num_attention_heads,
            num_key_value_heads,
            head_dim: self.size("head_dim", Some(defaults.head_dim.unwrap_or(hidden_size / num_attention_heads)))?,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            max_position_embeddings,
            rms_norm_eps: self.get("rms_norm_eps")?.unwrap_or(1e-6),
            rope: self.rope(defaults.rope_theta, max_position_embeddings)?,
            tie_word_embeddings: self.get("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings),
            initializer_range: self.get("initializer_range")?.unwrap_or(0.02),
            bos_token_id: self.get("bos_token_id")?,
            eos_token_ids: self.get::<TokenIds>("eos_token_id")?.map(TokenIds::into_vec).unwrap_or_default(),
        })
    }

    /// Settings of transformers for every family.
    fn check_supported(&self) -> Result<(), String> {
        match self.get::<String>("hidden_act")?.as_deref() {
            None | Some("silu") => {}
            Some(other) => return Err(format!("hidden_act is {other}; supported: silu")),
        }
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

    /// `rope_parameters` as transformers 5 writes it, or `rope_theta` and `rope_scaling` as earlier
    /// ones do.
    fn rope(&self, default_theta: f64, max_position_embeddings: usize) -> Result<Rope, String> {
        let written = |name: &'static str| {
            Ok::<_, String>(self.get::<Map<String, Value>>(name)?.filter(|rope| !rope.is_empty()).map(|rope| (name, rope)))
        };
        let (name, rope) = match (written("rope_scaling")?, written("rope_parameters")?) {
            (Some((_, scaling)), Some((_, parameters))) if scaling != parameters => {
                return Err("rope_scaling and rope_parameters say different things; expected one of them".to_string());
            }
            (scaling, parameters) => parameters.or(scaling).unwrap_or_default(),
        };
        let rope_settings = Settings(&rope);
        let kind = rope_settings.get::<String>("rope_type")?.or(rope_settings.get("type")?).unwrap_or_else(|| "default".to_string());
        let (theta, inner_theta) = (self.get::<f64>("rope_theta")?, rope_settings.get::<f64>("rope_theta")?);
        if let (Some(outer), Some(inner)) = (theta, inner_theta)
            && outer != inner
        {
            return Err(format!("rope_theta is {outer}, but {name} says {inner}; expected one value"));
        }
        for factor in [self.get::<f64>("partial_rotary_factor")?, rope_settings.get("partial_rotary_factor")?].into_iter().flatten() {
            if factor != 1.0 {
                return Err(format!("partial_rotary_factor is {factor}; supported: 1"));
            }
        }
        let known: &[&str] = match kind.as_str() {
            "default" => &[],
            "llama3" => &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
            other => return Err(format!("{name} of type {other} is not supported; supported: default (no scaling), llama3")),
        };
        let always = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        if let Some(unknown) =
            rope.iter().find(|(key, value)| !value.is_null() && !always.contains(&key.as_str()) && !known.contains(&key.as_str()))
        {
            return Err(format!("{name} of type {kind} has {}, which is not supported", unknown.0));
        }
        let scaling = if kind == "llama3" { Some(llama3(name, &rope_settings, max_position_embeddings)?) } else { None };
        Ok(Rope { theta: inner_theta.or(theta).unwrap_or(default_theta), scaling })
    }
}

fn llama3(name: &str, settings: &Settings, max_position_embeddings: usize) -> Result<Llama3Scaling, String> {
    let number = |key: &str| settings.get::<f64>(key)?.ok_or_else(|| format!("{name} of type llama3: {key} is missing"));
    Ok(Llama3Scaling {
        factor: number("factor")?,
        low_freq_factor: number("low_freq_factor")?,
        high_freq_factor: number("high_freq_factor")?,
        original_max_position_embeddings: settings.get("original_max_position_embeddings")?.unwrap_or(max_position_embeddings as f64),
    })
}
