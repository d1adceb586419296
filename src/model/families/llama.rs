//! Llama 2 and 3 (and SmolLM2, which is one): `LlamaConfig` of transformers.

use super::settings::{Defaults, Settings};
use crate::model::ModelConfig;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let attention_bias = settings.flag("attention_bias")?;
    let defaults = Defaults {
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let model = settings.model(&defaults)?;
    Ok(ModelConfig { qkv_bias: attention_bias, o_bias: attention_bias, mlp_bias: settings.flag("mlp_bias")?, ..model })
}
