//! Phi-3 and Phi-4-mini: `Phi3Config` of transformers. Fused projections, LongRoPE, and in
//! Phi-4-mini heads that are rotated in part.

use super::rope::Reading;
use super::settings::{Defaults, Settings};
use crate::model::{Activation, ModelConfig};

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 4096,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let reading = Reading::new(defaults.rope_theta, settings.context(&defaults)?);
    let rope = Reading { is_partial: true, has_old_names: true, original: Some(4096.0), ..reading }.read(settings)?;
    let mut model = settings.model_with(&defaults, rope, settings.activation("hidden_act", Activation::Silu)?)?;
    let window = settings.sliding_window(None)?;
    for layer in &mut model.layers {
        layer.sliding_window = window;
    }
    Ok(ModelConfig { fused_projections: true, rms_norm_eps: settings.get("rms_norm_eps")?.unwrap_or(1e-5), ..model })
}
