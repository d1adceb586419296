//! Qwen3: `Qwen3Config` of transformers. Queries and keys are normalised in each head; the head's
//! width is a setting of its own.

use super::qwen2;
use super::settings::{Defaults, Settings};
use crate::model::{ModelConfig, QkNorm};

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: Some(32),
        head_dim: Some(128),
        max_position_embeddings: 32_768,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let attention_bias = settings.flag("attention_bias")?;
    let mut model = settings.model(&defaults)?;
    qwen2::give_windows(&mut model, settings)?;
    Ok(ModelConfig { qkv_bias: attention_bias, o_bias: attention_bias, qk_norm: Some(QkNorm::EachHead), ..model })
}
