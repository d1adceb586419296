//! z_score: the prompts whose rewards are lowest for their group first. Rewards of different prompts are only comparable as far as their
//! tasks are: ranked by reward alone, one hard family of tasks can take every place.
//!
//! key(p) = (s − μ) / σ of the scores s in p's group, ascending; 0 where all scores of a group are the same. A prompt without a group belongs
//! to the group of those. Rounded to nine digits behind the point, so that equal standings are equal whatever the order of sums.

use super::{Known, Rule};
use crate::pipeline::spec::select::ZScore;

/// A spread below this share of the mean is one of rounding.
const LEAST_SPREAD: f64 = 1e-9;

/// What keys are multiplied by before they are rounded.
const DIGITS: f64 = 1e9;

impl Rule for ZScore {
    fn key_sql(&self) -> Option<String> {
        let (mean, deviation) = ("avg(score) OVER (PARTITION BY of_group)", "stddev_pop(score) OVER (PARTITION BY of_group)");
        Some(format!(
            "CASE WHEN {deviation} > {LEAST_SPREAD:?} * abs({mean}) THEN round((score - {mean}) / {deviation} * {DIGITS:?}) + 0.0
              WHEN score IS NOT NULL THEN 0.0 END"
        ))
    }

    fn key(&self, prompt: &Known) -> Option<f64> {
        let (score, group) = (prompt.score?, prompt.group);
        let has_spread = group.deviation > LEAST_SPREAD * group.mean.abs();
        // 0 and −0 would be two places.
        Some(if has_spread { ((score - group.mean) / group.deviation * DIGITS).round() + 0.0 } else { 0.0 })
    }

    fn group(&self) -> Option<&str> {
        Some(&self.group)
    }
}
