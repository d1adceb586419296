//! The weight of a pair, from its reward_gap g, with s = gap_scale:
//!
//! | kind | weight |
//! |---|---|
//! | none | 1: plain DPO |
//! | linear | s·g |
//! | sigmoid | σ(s·g) |
//! | inverse | 1 / (1 + s·g) |
//! | exponential | exp(s·g) |
//!
//! With `normalize: mean`, the weight is then divided by the mean weight of the iteration's pairs.
//! With `clip`, it is then at most `clip`. OPTune's weights grow with the gap (arXiv 2406.07657);
//! its abstract leaves the form open. `reference_sql` has the same formulas as SQL.

use crate::pipeline::spec::pair::{Weight, WeightKind};

/// The weight before it is normalized and clipped.
pub(super) fn raw_weight(settings: &Weight, gap: f64) -> f64 {
    match settings.kind {
        WeightKind::None => 1.0,
        WeightKind::Linear => settings.gap_scale * gap,
        WeightKind::Sigmoid => 1.0 / (1.0 + (-(settings.gap_scale * gap)).exp()),
        WeightKind::Inverse => 1.0 / (1.0 + settings.gap_scale * gap),
        WeightKind::Exponential => (settings.gap_scale * gap).exp(),
    }
}

/// The weight of a pair. `mean` is the mean raw weight; `None` if weights are not normalized.
pub(super) fn pair_weight(settings: &Weight, mean: Option<f64>, gap: f64) -> f64 {
    let raw = raw_weight(settings, gap);
    let normalized = mean.map_or(raw, |mean| raw / mean);
    settings.clip.map_or(normalized, |clip| normalized.min(clip))
}
