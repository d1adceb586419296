//! Gemma 3's language model: `Gemma3TextConfig` of transformers. As Gemma 2, with norms of queries
//! and keys in place of capped scores, a window in five of six layers, and other positions there.

use super::gemma2::{defaults, gemma};
use super::rope::Reading;
use super::settings::Settings;
use crate::model::{ModelConfig, QkNorm};

/// A layer without a window every so many.
const PATTERN: usize = 6;

pub(super) fn read(settings: &Settings) -> Result<ModelConfig, String> {
    let defaults = defaults(131_072);
    let local = settings.get("rope_local_base_freq")?.unwrap_or(10_000.0);
    let [rope, local] = Reading::new(1_000_000.0, settings.context(&defaults)?).read_both(settings, local)?;
    let mut model = gemma(settings, &defaults, rope)?;
    let pattern = settings.get("sliding_window_pattern")?.unwrap_or(PATTERN);
    settings.give_pattern(&mut model, settings.sliding_window(Some(4096))?, pattern)?;
    Ok(ModelConfig {
        qk_norm: Some(QkNorm::EachHead),
        // transformers does not cap the scores here, whatever attn_logit_softcapping says.
        final_logit_softcapping: settings.get("final_logit_softcapping")?,
        local_rope: (local != model.rope).then_some(local),
        ..model
    })
}
