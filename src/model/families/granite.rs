//! Granite 3: `GraniteConfig` of transformers. As Llama, with factors of embeddings, scores of
//! attention, residual stream and logits.

use super::settings::{Defaults, Settings};
use crate::model::ModelConfig;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let attention_bias = settings.flag("attention_bias")?;
    let factor = |name: &str| Ok::<_, String>(settings.get(name)?.unwrap_or(1.0));
    Ok(ModelConfig {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: settings.flag("mlp_bias")?,
        embedding_multiplier: factor("embedding_multiplier")?,
        attention_multiplier: factor("attention_multiplier")?,
        residual_multiplier: factor("residual_multiplier")?,
        logits_scaling: factor("logits_scaling")?,
        ..settings.model(&defaults)?
    })
}
