//! What a pair counts, from its reward_gap g, with s = gap_scale:
//!
//! | kind | weight |
//! |---|---|
//! | none | 1: plain DPO |
//! | linear | s·g |
//! | sigmoid | σ(s·g) |
//! | inverse | 1 / (1 + s·g) |
//!
//! then divided by its mean over the iteration's pairs if asked for, then cut at `clip`. OPTune's weights grow with the gap (arXiv 2406.07657);
//! its abstract leaves the form open.

use crate::pipeline::spec::pair::{Normalize, Weight, WeightKind};

/// The three steps as SQL, each over what the one before is called.
pub(super) struct Sql {
    pub(super) raw: String,
    pub(super) normalized: &'static str,
    pub(super) clipped: String,
}

impl Sql {
    pub(super) fn of(weight: &Weight) -> Self {
        let scale = weight.gap_scale;
        let raw = match weight.kind {
            WeightKind::None => "CAST(1 AS DOUBLE)".to_string(),
            WeightKind::Linear => format!("{scale:?} * reward_gap"),
            WeightKind::Sigmoid => format!("1.0 / (1.0 + exp(-({scale:?} * reward_gap)))"),
            WeightKind::Inverse => format!("1.0 / (1.0 + {scale:?} * reward_gap)"),
        };
        let normalized = match weight.normalize {
            Normalize::None => "raw",
            Normalize::Mean => "raw / avg(raw) OVER ()",
        };
        let clipped = match weight.clip {
            Some(clip) => format!("least(normalized, {clip:?})"),
            None => "normalized".to_string(),
        };
        Self { raw, normalized, clipped }
    }
}

/// The weight of a reward_gap by itself.
pub(super) fn raw(weight: &Weight, gap: f64) -> f64 {
    match weight.kind {
        WeightKind::None => 1.0,
        WeightKind::Linear => weight.gap_scale * gap,
        WeightKind::Sigmoid => 1.0 / (1.0 + (-(weight.gap_scale * gap)).exp()),
        WeightKind::Inverse => 1.0 / (1.0 + weight.gap_scale * gap),
    }
}

/// The weight of a reward_gap, where `mean` is that of all weights if they are divided by it.
pub(super) fn weight(weight: &Weight, mean: Option<f64>, gap: f64) -> f64 {
    let raw = raw(weight, gap);
    let normalized = mean.map_or(raw, |mean| raw / mean);
    weight.clip.map_or(normalized, |clip| normalized.min(clip))
}
