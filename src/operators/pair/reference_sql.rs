//! Equivalent SQL of the pairs, for `optune plan --sql`.
//!
//! `merge_join` computes the same rows; tests compare both to the last bit. Knows the formulas of
//! rejection rules and weights as SQL expressions.

use super::rejection::DISTANCE_SCALE;
use super::truncation::pool_query;
use crate::pipeline::spec::pair::{Normalize, Pair, Rejected, Truncated, Weight, WeightKind};

/// The pairs as SQL over `pool`. With `rejected: random`, the pool needs the column `draw`.
///
/// The response with the highest reward is chosen. The rejected one is the first in `rank` order
/// among the responses with a lower reward. Ties go by response_index, then sampled_iteration.
pub fn sql(settings: &Pair) -> String {
    let rank = rank(settings.rejected);
    let first = |column: &str, order: &str| format!("first_value({column} ORDER BY {order}, response_index, sampled_iteration)");
    let spread =
        if settings.rejected == Rejected::TwoSigma { ",\n         avg(reward) AS mean, stddev_pop(reward) AS deviation" } else { "" };
    let (kept, pool) = match settings.truncated {
        Truncated::Keep => (String::new(), "pool"),
        _ => (format!("counted AS (\n  {}\n), ", pool_query(settings, true)), "counted"),
    };
    format!(
        "WITH {kept}best AS (
  SELECT prompt_id, {chosen_sampled_iteration} AS chosen_sampled_iteration, {chosen_index} AS chosen_index, max(reward) AS highest{spread}
  FROM {pool} GROUP BY prompt_id
), worse AS (
  SELECT * FROM {pool} JOIN best USING (prompt_id) WHERE highest - reward > 0
), paired AS (
  SELECT prompt_id, first_value(chosen_sampled_iteration) AS chosen_sampled_iteration, first_value(chosen_index) AS chosen_index,
         {rejected_sampled_iteration} AS rejected_sampled_iteration, {rejected_index} AS rejected_index,
         {rejected_gap} AS reward_gap
  FROM worse GROUP BY prompt_id
), weighted AS (
  SELECT *, {raw} AS raw FROM paired
), scaled AS (
  SELECT *, {normalized} AS normalized FROM weighted
)
SELECT prompt_id, chosen_sampled_iteration, chosen_index, rejected_sampled_iteration, rejected_index, reward_gap, {clipped} AS weight,
       CAST(NULL AS DOUBLE) AS reference_logprob_chosen, CAST(NULL AS DOUBLE) AS reference_logprob_rejected
FROM scaled
ORDER BY prompt_id",
        chosen_sampled_iteration = first("sampled_iteration", "reward DESC"),
        chosen_index = first("response_index", "reward DESC"),
        rejected_sampled_iteration = first("sampled_iteration", &rank),
        rejected_index = first("response_index", &rank),
        rejected_gap = first("highest - reward", &rank),
        raw = raw_weight(&settings.weight),
        normalized = normalized_weight(&settings.weight),
        clipped = clipped_weight(&settings.weight),
    )
}

/// The order of candidates over the columns of the pool, `draw`, and `mean` and `deviation` of the
/// prompt's rewards.
fn rank(rejected: Rejected) -> String {
    match rejected {
        Rejected::Worst => "reward ASC".to_string(),
        Rejected::Random => "CAST(draw AS DOUBLE)".to_string(),
        Rejected::TwoSigma => format!("round(abs(reward - (mean - 2.0 * deviation)) * {DISTANCE_SCALE:?}), reward ASC"),
    }
}

/// The weight over `reward_gap`.
fn raw_weight(weight: &Weight) -> String {
    let scale = weight.gap_scale;
    match weight.kind {
        WeightKind::None => "CAST(1 AS DOUBLE)".to_string(),
        WeightKind::Linear => format!("{scale:?} * reward_gap"),
        WeightKind::Sigmoid => format!("1.0 / (1.0 + exp(-({scale:?} * reward_gap)))"),
        WeightKind::Inverse => format!("1.0 / (1.0 + {scale:?} * reward_gap)"),
        WeightKind::Exponential => format!("exp({scale:?} * reward_gap)"),
    }
}

/// The weight over `raw`.
fn normalized_weight(weight: &Weight) -> &'static str {
    match weight.normalize {
        Normalize::None => "raw",
        Normalize::Mean => "raw / avg(raw) OVER ()",
    }
}

/// The weight over `normalized`.
fn clipped_weight(weight: &Weight) -> String {
    match weight.clip {
        Some(clip) => format!("least(normalized, {clip:?})"),
        None => "normalized".to_string(),
    }
}
