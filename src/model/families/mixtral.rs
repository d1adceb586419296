//! Mixtral: `MixtralConfig` of transformers. Mistral's attention; every layer has routed experts,
//! and the chosen ones' probabilities are divided by their sum.

use super::settings::{Defaults, Settings};
use crate::model::{ExpertNames, ExpertsConfig, ModelConfig};

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: Some(8),
        head_dim: None,
        max_position_embeddings: 131_072,
        tie_word_embeddings: false,
        rope_theta: 1_000_000.0,
    };
    let noise: f64 = settings.get("router_jitter_noise")?.unwrap_or(0.0);
    if noise != 0.0 {
        return Err(format!("router_jitter_noise is {noise}, which is not supported; expected 0"));
    }
    let mut model = settings.model(&defaults)?;
    let window = settings.sliding_window(None)?;
    for layer in &mut model.layers {
        layer.sliding_window = window;
        layer.routed = true;
    }
    let experts = ExpertsConfig {
        num_experts: settings.experts(8)?,
        num_experts_per_tok: settings.size("num_experts_per_tok", Some(2))?,
        moe_intermediate_size: model.intermediate_size,
        norm_topk_prob: true,
        router_aux_loss_coef: settings.get("router_aux_loss_coef")?.unwrap_or(0.001),
        names: ExpertNames::Numbered,
    };
    Ok(ModelConfig { rms_norm_eps: settings.get("rms_norm_eps")?.unwrap_or(1e-5), experts: Some(experts), ..model })
}
