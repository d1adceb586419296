//! Qwen2 and Qwen2.5: `Qwen2Config` of transformers. Queries, keys and values have biases; upper
//! layers may have a window.

use super::settings::{Defaults, Settings};
use crate::model::ModelConfig;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: Some(32),
        head_dim: None,
        max_position_embeddings: 32_768,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    if settings.flag("use_mrope")? {
        return Err("use_mrope is true, which is not supported".to_string());
    }
    let mut model = settings.model(&defaults)?;
    give_windows(&mut model, settings)?;
    Ok(ModelConfig { qkv_bias: true, ..model })
}

/// A window only where `use_sliding_window` is true: in the layers that `layer_types` names, else
/// in those from `max_window_layers` on.
pub(super) fn give_windows(model: &mut ModelConfig, settings: &Settings) -> Result<(), String> {
    let window = if settings.flag("use_sliding_window")? { settings.sliding_window(Some(4096))? } else { None };
    let windows = match settings.layer_windows(model.layers.len(), window)? {
        Some(windows) => windows,
        None => {
            let first = settings.get("max_window_layers")?.unwrap_or(28);
            (0..model.layers.len()).map(|layer| window.filter(|_| layer >= first)).collect()
        }
    };
    for (layer, window) in model.layers.iter_mut().zip(windows) {
        layer.sliding_window = window;
    }
    Ok(())
}
