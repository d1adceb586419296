//! Gemma 2: `Gemma2Config` of transformers. Norms with 1 added to their weights stand around
//! attention and MLP; embeddings are scaled, scores and logits capped; every other layer has a
//! window.

use super::rope::Reading;
use super::settings::{Defaults, Settings};
use crate::model::rope::Rope;
use crate::model::{Activation, LayerNorms, ModelConfig};

/// A layer without a window every so many.
const PATTERN: usize = 2;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = defaults(8192);
    let rope = Reading::new(defaults.rope_theta, settings.context(&defaults)?).read(settings)?;
    let mut model = gemma(settings, &defaults, rope)?;
    settings.give_pattern(&mut model, settings.sliding_window(Some(4096))?, PATTERN)?;
    Ok(ModelConfig {
        // Left out and null differ.
        attn_logit_softcapping: settings.get_or("attn_logit_softcapping", Some(50.0))?,
        final_logit_softcapping: settings.get_or("final_logit_softcapping", Some(30.0))?,
        ..model
    })
}

/// The defaults of both Gemma 2 and 3.
pub(super) fn defaults(max_position_embeddings: usize) -> Defaults {
    Defaults { num_key_value_heads: Some(4), head_dim: Some(256), max_position_embeddings, tie_word_embeddings: true, rope_theta: 10_000.0 }
}

/// The common part of Gemma 2 and 3.
pub(super) fn gemma(settings: &Settings, defaults: &Defaults, rope: Rope) -> Result<ModelConfig, String> {
    if settings.flag("use_bidirectional_attention")? {
        return Err("use_bidirectional_attention is true, but only causal attention is supported".to_string());
    }
    let model = settings.model_with(defaults, rope, settings.activation("hidden_activation", Activation::GeluTanh)?)?;
    let attention_bias = settings.flag("attention_bias")?;
    let query_pre_attn_scalar: f64 = settings.get("query_pre_attn_scalar")?.unwrap_or(256.0);
    Ok(ModelConfig {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        layer_norms: LayerNorms::Around,
        norm_offset: 1.0,
        attention_multiplier: query_pre_attn_scalar.powf(-0.5),
        embedding_multiplier: (model.hidden_size as f64).sqrt(),
        ..model
    })
}
