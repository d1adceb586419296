//! Equivalent SQL of the prediction behind `expected_gain`, for `optune plan --sql`.
//!
//! `expected_gain` computes the same numbers, up to rounding; tests compare both. The SQL looks at
//! every pair for every prompt, so it is for people and small tables.

use crate::pipeline::spec::select::{ExpectedGain, Objective, Select, Strategy};

/// Queries of a `WITH`. The last is `predicted(prompt_id, expected_gain, expected_tokens)`: one row
/// for each prompt in `prompts`.
pub(super) fn predicted(settings: &Select) -> String {
    let ExpectedGain { objective, neighbors } = match settings.strategy {
        Strategy::ExpectedGain(settings) => settings,
        _ => ExpectedGain::default(),
    };
    let draws = settings.responses_per_prompt;
    let chance = |through: &str, below: &str| format!("(power({through} / count, {draws}) - power({below} / count, {draws}))");
    let mut gain = format!("{} * greatest(reward - best, 0.0)", chance("place", "(place - 1.0)"));
    if objective == Objective::Gap {
        gain += &format!("\n             + {} * greatest(worst - reward, 0.0)", chance("(count - place + 1.0)", "(count - place)"));
    }
    let level = |mean: &str| format!("coalesce(round(({mean} - lowest) / nullif(width, 0.0) * 1e9), 0.0)");
    format!(
        "seen AS (
  SELECT pool.prompt_id, reward, token_count, count(*) OVER (PARTITION BY pool.prompt_id) AS rewards,
         sum(reward) OVER (PARTITION BY pool.prompt_id) AS sum
  FROM pool JOIN prompts ON pool.prompt_id = prompts.prompt_id
), scale AS (
  SELECT min(reward) AS lowest, max(reward) - min(reward) AS width, avg(token_count) AS mean_tokens FROM seen
), pairs AS (
  SELECT reward, {others} AS others FROM seen CROSS JOIN scale WHERE rewards > 1
  UNION ALL
  SELECT reward, 0.0 AS others FROM seen WHERE NOT EXISTS (SELECT 1 FROM seen WHERE rewards > 1)
), means AS (
  SELECT prompt_id, {mean} AS mean, best, worst
  FROM (SELECT prompt_id, avg(reward) AS mean, max(reward) AS best, min(reward) AS worst FROM seen GROUP BY prompt_id) AS prompt
  CROSS JOIN scale
), near AS (
  SELECT prompt_id, best, worst, reward, rank() OVER (PARTITION BY prompt_id ORDER BY abs(others - mean)) AS distance
  FROM means CROSS JOIN pairs
), next_reward AS (
  SELECT prompt_id, best, worst, reward,
         CAST(row_number() OVER (PARTITION BY prompt_id ORDER BY reward) AS DOUBLE) AS place,
         CAST(count(*) OVER (PARTITION BY prompt_id) AS DOUBLE) AS count
  FROM near WHERE distance <= {neighbors}
), gain AS (
  SELECT prompt_id, sum({gain}) AS gain FROM next_reward GROUP BY prompt_id
), lengths AS (
  SELECT prompt_id, avg(token_count) AS tokens FROM seen GROUP BY prompt_id
), predicted AS (
  SELECT prompts.prompt_id, coalesce(round(gain / nullif(width, 0.0) * 1e12) / 1e12 * width, gain) AS expected_gain,
         {draws} * greatest(coalesce(tokens, mean_tokens, 1.0), 1.0) AS expected_tokens
  FROM prompts CROSS JOIN scale
  LEFT JOIN gain ON prompts.prompt_id = gain.prompt_id LEFT JOIN lengths ON prompts.prompt_id = lengths.prompt_id
)",
        others = level("(sum - reward) / (rewards - 1)"),
        mean = level("mean"),
    )
}
