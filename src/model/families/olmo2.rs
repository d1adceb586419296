//! OLMo 2: `Olmo2Config` of transformers. Norms stand behind attention and MLP, and over all heads
//! of queries and keys.

use super::settings::{Defaults, Settings};
use crate::model::{LayerNorms, ModelConfig, QkNorm};

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    norms_behind(settings.model(&defaults)?, settings)
}

/// A `model` with the norms and biases of both OLMo 2 and 3.
pub(super) fn norms_behind(model: ModelConfig, settings: &Settings) -> Result<ModelConfig, String> {
    let attention_bias = settings.flag("attention_bias")?;
    Ok(ModelConfig {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        qk_norm: Some(QkNorm::AllHeads),
        layer_norms: LayerNorms::Behind,
        rms_norm_eps: settings.get("rms_norm_eps")?.unwrap_or(1e-5),
        ..model
    })
}
