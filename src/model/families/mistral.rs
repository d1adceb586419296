//! Mistral: `MistralConfig` of transformers. One window for all layers, on unless it is null.

use super::settings::{Defaults, Settings};
use crate::model::ModelConfig;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: Some(8),
        head_dim: None,
        max_position_embeddings: 131_072,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let mut model = settings.model(&defaults)?;
    let window = settings.sliding_window(Some(4096))?;
    // transformers ignores layer_types here; what was meant by others would change the logits.
    if let Some(windows) = settings.layer_windows(model.layers.len(), window)?
        && windows.iter().any(|other| *other != window)
    {
        return Err("layer_types gives layers different windows, but Mistral has the same sliding_window in all of them".to_string());
    }
    for layer in &mut model.layers {
        layer.sliding_window = window;
    }
    Ok(model)
}
