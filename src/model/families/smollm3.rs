//! SmolLM3: `SmolLM3Config` of transformers. Some layers, every fourth unless said otherwise, go
//! without rotary positions.

use super::settings::{Defaults, Settings};
use crate::model::ModelConfig;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: Some(4),
        head_dim: None,
        max_position_embeddings: 32_768,
        tie_word_embeddings: true,
        rope_theta: 2_000_000.0,
    };
    let attention_bias = settings.flag("attention_bias")?;
    let mut model = settings.model(&defaults)?;
    let rotary = rotary_layers(settings, model.layers.len())?;
    let window = if settings.flag("use_sliding_window")? { settings.sliding_window(None)? } else { None };
    let windows = settings.layer_windows(model.layers.len(), window)?;
    let windows = windows.unwrap_or_else(|| rotary.iter().map(|rotary| window.filter(|_| !rotary)).collect());
    for ((layer, rotary), window) in model.layers.iter_mut().zip(rotary).zip(windows) {
        layer.rotary = rotary;
        layer.sliding_window = window;
    }
    Ok(ModelConfig { qkv_bias: attention_bias, o_bias: attention_bias, mlp_bias: settings.flag("mlp_bias")?, ..model })
}

/// Whether each layer has rotary positions: 1 in `no_rope_layers` is a layer that has them,
/// whatever the name says.
fn rotary_layers(settings: &Settings, layers: usize) -> Result<Vec<bool>, String> {
    if let Some(given) = settings.get::<Vec<i64>>("no_rope_layers")? {
        if given.len() < layers {
            return Err(format!("no_rope_layers has {} entries, expected one a layer ({layers})", given.len()));
        }
        return Ok(given.iter().take(layers).map(|rotary| *rotary != 0).collect());
    }
    match settings.get::<usize>("no_rope_layer_interval")?.unwrap_or(4) {
        0 => Err("no_rope_layer_interval is 0, expected 1 or more".to_string()),
        interval => Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect()),
    }
}
