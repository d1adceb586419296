//! Qwen3-MoE: `Qwen3MoeConfig` of transformers. Qwen3's attention with one window for all layers;
//! some layers, all unless said otherwise, have routed experts.

use super::settings::{Defaults, Settings};
use crate::model::{ExpertNames, ExpertsConfig, ModelConfig, QkNorm};

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = Defaults {
        num_key_value_heads: Some(4),
        head_dim: None,
        max_position_embeddings: 32_768,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let attention_bias = settings.flag("attention_bias")?;
    let mut model = settings.model(&defaults)?;
    let window = if settings.flag("use_sliding_window")? { settings.sliding_window(Some(4096))? } else { None };
    // transformers ignores layer_types here; what was meant by others would change the logits.
    if let Some(windows) = settings.layer_windows(model.layers.len(), window)?
        && windows.iter().any(|other| *other != window)
    {
        return Err("layer_types gives layers different windows, but Qwen3-MoE has the same sliding_window in all of them".to_string());
    }
    let step = settings.size("decoder_sparse_step", Some(1))?;
    let dense: Vec<usize> = settings.get("mlp_only_layers")?.unwrap_or_default();
    for (index, layer) in model.layers.iter_mut().enumerate() {
        layer.sliding_window = window;
        layer.routed = !dense.contains(&index) && (index + 1).is_multiple_of(step);
    }
    let experts = ExpertsConfig {
        num_experts: settings.experts(128)?,
        num_experts_per_tok: settings.size("num_experts_per_tok", Some(8))?,
        moe_intermediate_size: settings.size("moe_intermediate_size", Some(768))?,
        norm_topk_prob: settings.flag("norm_topk_prob")?,
        router_aux_loss_coef: settings.get("router_aux_loss_coef")?.unwrap_or(0.001),
        names: ExpertNames::Projections,
    };
    let experts = model.layers.iter().any(|layer| layer.routed).then_some(experts);
    Ok(ModelConfig { qkv_bias: attention_bias, o_bias: attention_bias, qk_norm: Some(QkNorm::EachHead), experts, ..model })
}
