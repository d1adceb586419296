//! Equivalent SQL of the beliefs behind `posterior`, for `optune plan --sql`.
//!
//! `posterior` computes the same numbers, up to rounding; tests compare both.

use super::posterior::LEAST_VARIANCE;
use crate::pipeline::spec::select::{Posterior, PosteriorKind};

/// Queries of a `WITH`. The last is `believed(prompt_id, belief_mean, belief_variance)`: one row
/// for each prompt in `prompts`.
pub(super) fn believed(settings: &Posterior, iteration: u32, has_previous: bool) -> String {
    let forget = settings.forget;
    let previous = if has_previous { "previous" } else { "(SELECT prompt_id, belief_mean, belief_variance FROM nothing) AS previous" };
    let nothing = if has_previous {
        ""
    } else {
        "nothing AS (
  SELECT prompt_id, CAST(NULL AS DOUBLE) AS belief_mean, CAST(NULL AS DOUBLE) AS belief_variance FROM prompts
), "
    };
    let scaled = match settings.kind {
        PosteriorKind::Beta => "reward",
        // −0 + 0 is 0: equal rewards are one partition.
        PosteriorKind::Kalman => {
            "(rank() OVER (ORDER BY reward + 0.0) - 1.0 + count(*) OVER (PARTITION BY reward + 0.0) / 2.0) / count(*) OVER ()"
        }
    };
    let updated = match settings.kind {
        PosteriorKind::Beta => format!(
            "parameters AS (
  SELECT prompt_id, 1.0 + {kept:?} * (mean * (mean * (1.0 - mean) / variance - 1.0) - 1.0) + coalesce(good, 0.0) AS a,
         1.0 + {kept:?} * ((1.0 - mean) * (mean * (1.0 - mean) / variance - 1.0) - 1.0) + coalesce(count - good, 0.0) AS b
  FROM observed
), believed AS (
  SELECT prompt_id, a / (a + b) AS belief_mean, a * b / ((a + b) * (a + b) * (a + b + 1.0)) AS belief_variance FROM parameters
)",
            kept = 1.0 - forget
        ),
        PosteriorKind::Kalman => format!(
            "forgotten AS (
  SELECT prompt_id, count, good, mean, variance + {forget:?} * (1.0 / 12.0 - variance) AS variance FROM observed
), trusted AS (
  SELECT *, coalesce(variance / (variance + (SELECT noise FROM noise) / count), 0.0) AS trust FROM forgotten
), believed AS (
  SELECT prompt_id, coalesce(mean + trust * (good / count - mean), mean) AS belief_mean,
         CASE WHEN count IS NULL THEN variance ELSE greatest(variance * (1.0 - trust), {LEAST_VARIANCE:?}) END AS belief_variance
  FROM trusted
)"
        ),
    };
    format!(
        "{nothing}scaled AS (
  SELECT pool.prompt_id, sampled_iteration, {scaled} AS scaled FROM pool JOIN prompts ON pool.prompt_id = prompts.prompt_id
), spread AS (
  SELECT scaled - avg(scaled) OVER (PARTITION BY prompt_id) AS distance FROM scaled
), noise AS (
  SELECT coalesce(greatest(sum(distance * distance)
           / nullif((SELECT count(*) - count(DISTINCT prompt_id) FROM scaled), 0), {LEAST_VARIANCE:?}), 1.0 / 12.0) AS noise
  FROM spread
), fresh AS (
  SELECT scaled.prompt_id, CAST(count(*) AS DOUBLE) AS count, sum(scaled) AS good
  FROM scaled LEFT JOIN {previous} ON scaled.prompt_id = previous.prompt_id
  WHERE belief_mean IS NULL OR belief_variance IS NULL OR sampled_iteration + 1 >= {iteration}
  GROUP BY scaled.prompt_id
), observed AS (
  SELECT prompts.prompt_id, fresh.count, fresh.good,
         CASE WHEN belief_variance IS NULL THEN 0.5 ELSE coalesce(belief_mean, 0.5) END AS mean,
         CASE WHEN belief_mean IS NULL THEN 1.0 / 12.0 ELSE coalesce(belief_variance, 1.0 / 12.0) END AS variance
  FROM prompts LEFT JOIN {previous} ON prompts.prompt_id = previous.prompt_id
  LEFT JOIN fresh ON prompts.prompt_id = fresh.prompt_id
), {updated}"
    )
}
