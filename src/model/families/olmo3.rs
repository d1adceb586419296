//! OLMo 3: `Olmo3Config` of transformers. As OLMo 2, with a window in three of four layers; scaled
//! positions are those of the other layers.

use super::olmo2;
use super::rope::Reading;
use super::settings::{Defaults, Settings};
use crate::model::{Activation, ModelConfig};

/// A layer without a window every so many.
const PATTERN: usize = 4;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
        rope_theta: 500_000.0,
    };
    let reading = Reading::new(defaults.rope_theta, settings.context(&defaults)?);
    // An outer rope_theta is that of layers without a window only.
    let [rope, local] = reading.read_both(settings, defaults.rope_theta)?;
    let model = settings.model_with(&defaults, rope, settings.activation("hidden_act", Activation::Silu)?)?;
    let mut model = olmo2::norms_behind(model, settings)?;
    settings.give_pattern(&mut model, settings.sliding_window(Some(4096))?, PATTERN)?;
    Ok(ModelConfig { local_rope: (local != model.rope).then_some(local), ..model })
}
