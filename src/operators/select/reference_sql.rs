//! Equivalent SQL of a selection, for `optune plan --sql`.
//!
//! `merge_join` computes the same rows; tests compare both to the last bit, except for predictions.
//! Knows the formulas of the strategies as SQL expressions.

use super::expected_gain_sql;
use super::posterior_sql;
use super::queries::{EVERY_PROMPT, text_column};
use super::quota::{Quota, ratio};
use super::strategies::{DRAW_COUNT, LEAST_RELATIVE_SPREAD, Z_SCORE_SCALE, strategy};
use crate::pipeline::spec::select::{RankBy, Select, Strategy};

/// The selection as SQL over `prompts(prompt_id, draw)` and, after the first iteration, over `pool`
/// and the last selection, `previous`.
///
/// Prompts without a reward come first. Ties go by prompt_id. `quota` has the counts; without it,
/// the SQL has their formulas, for people to read.
///
/// Some strategies exclude prompts. `tier` is then 0 for prompts selected in any case, 1 for
/// eligible prompts and 2 for the others.
pub fn sql(settings: &Select, iteration: u32, quota: Option<Quota>, has_pool: bool) -> String {
    if !has_pool {
        return EVERY_PROMPT.to_string();
    }
    let strategy = strategy(settings);
    let statistic = match settings.rank_by {
        RankBy::Mean => "avg(reward)",
        RankBy::Min => "min(reward)",
        RankBy::Max => "max(reward)",
        RankBy::Gap => "max(reward) - min(reward)",
    };
    let share_of_prompts = |rounding: &str, share: f64| format!("(SELECT {rounding}({share:?} * count(*)) FROM prompts)");
    let count = quota.map_or_else(|| share_of_prompts("ceil", ratio(settings, iteration)), |quota| quota.count.to_string());
    let dropped = quota.map_or_else(|| share_of_prompts("floor", strategy.dropped_share()), |quota| quota.dropped.to_string());
    let mut columns = String::new();
    let mut order = strategy.order().sql().to_string();
    let mut quotas = String::new();
    let mut from = "ranked";
    let mut prompts = "prompts".to_string();
    let mut selected = format!("rank <= {count}");
    if let Some(group) = strategy.group_column() {
        prompts = format!("(SELECT *, {} AS of_group FROM prompts) AS prompts", text_column(group));
    }
    if let Some(key) = key(&settings.strategy) {
        columns += &format!(",\n         {key} AS key");
    }
    if let Some(tier) = tier(settings, iteration) {
        columns += &format!(",\n         {tier} AS tier");
        order = format!("tier, {order}");
        quotas = format!(
            ", tiers AS (
  SELECT count(*) FILTER (WHERE tier = 0) AS overdue, count(*) FILTER (WHERE tier = 1) AS eligible FROM known
), quota AS (
  SELECT overdue, least(greatest({count} - overdue, 0), eligible) AS room,
         overdue + least({dropped}, eligible - least(greatest({count} - overdue, 0), eligible)) AS first
  FROM tiers
)"
        );
        from = "ranked CROSS JOIN quota";
        selected = "rank <= overdue OR (rank > first AND rank <= first + room)".to_string();
    }
    // What is learnt from all prompts: further queries, their columns and their joins.
    let mut learnt = String::new();
    let mut learnt_joins = String::new();
    let mut learnt_columns = ["expected_gain", "expected_tokens", "belief_mean", "belief_variance"]
        .map(|name| (name, format!("CAST(NULL AS DOUBLE) AS {name}")));
    let mut learn = |queries: String, relation: &str, names: &[&str]| {
        learnt += &format!(", {queries}");
        learnt_joins += &format!("\n  LEFT JOIN {relation} ON prompts.prompt_id = {relation}.prompt_id");
        for (name, column) in learnt_columns.iter_mut().filter(|(name, _)| names.contains(name)) {
            columns += &format!(", {relation}.{name}");
            *column = (*name).to_string();
        }
    };
    if settings.predicts() {
        learn(expected_gain_sql::predicted(settings), "predicted", &["expected_gain", "expected_tokens"]);
    }
    if let Strategy::Posterior(posterior) = &settings.strategy {
        let believed = posterior_sql::believed(posterior, iteration, settings.previous.is_some());
        learn(believed, "believed", &["belief_mean", "belief_variance"]);
    }
    let learnt_columns = learnt_columns.map(|(_, column)| column).join(", ");
    let mut budgeted = String::new();
    if let Some(budget) = settings.tokens {
        budgeted = format!(
            ", in_quota AS (
  SELECT *, {selected} AS in_quota FROM {from}
), spent AS (
  SELECT *, coalesce(sum(CASE WHEN in_quota THEN expected_tokens ELSE 0.0 END)
                       OVER (ORDER BY rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0.0) AS spent
  FROM in_quota
)"
        );
        let overdue = if settings.max_age.is_some() { "rank <= overdue OR " } else { "" };
        from = "spent";
        selected = format!("in_quota AND ({overdue}spent < {budget})");
    }
    let previous = if settings.previous.is_some() {
        "\n  LEFT JOIN (SELECT prompt_id, score AS before FROM previous) AS previous ON prompts.prompt_id = previous.prompt_id"
    } else {
        ""
    };
    format!(
        "WITH statistic AS (
  SELECT prompt_id, {statistic} AS score, max(reward) - min(reward) AS gap, max(sampled_iteration) AS sampled_iteration
  FROM pool GROUP BY prompt_id
){learnt}, known AS (
  SELECT prompts.prompt_id, score{columns}
  FROM {prompts} LEFT JOIN statistic ON prompts.prompt_id = statistic.prompt_id{previous}{learnt_joins}
), ranked AS (
  SELECT *, CAST(row_number() OVER (ORDER BY {order}, prompt_id) AS BIGINT) AS rank FROM known
){quotas}{budgeted}
SELECT prompt_id, score, rank, {selected} AS selected, {learnt_columns}
FROM {from}
ORDER BY rank"
    )
}

/// The key of a strategy; `None` if it ranks by the score.
fn key(strategy: &Strategy) -> Option<String> {
    match strategy {
        Strategy::HighestReward => Some("-score".to_string()),
        Strategy::Random => Some("CAST(draw AS DOUBLE)".to_string()),
        Strategy::RewardGain => Some("before - score".to_string()),
        Strategy::ZScore(_) => {
            let mean = "avg(score) OVER (PARTITION BY of_group)";
            let deviation = "stddev_pop(score) OVER (PARTITION BY of_group)";
            Some(format!(
                "CASE WHEN {deviation} > {LEAST_RELATIVE_SPREAD:?} * abs({mean}) THEN round((score - {mean}) / {deviation} * {Z_SCORE_SCALE:?}) + 0.0
              WHEN score IS NOT NULL THEN 0.0 END"
            ))
        }
        Strategy::ExpectedGain(_) => Some("-expected_gain / expected_tokens + 0.0".to_string()),
        Strategy::Posterior(settings) => Some(format!(
            "CASE WHEN score IS NOT NULL THEN abs(believed.belief_mean - 0.5) - {:?} * sqrt(believed.belief_variance) END",
            settings.explore
        )),
        Strategy::LowestReward | Strategy::All | Strategy::DropHardest(_) | Strategy::Band(_) | Strategy::SkipUninformative(_) => None,
    }
}

/// The condition for a prompt to be eligible; `None` if all are.
fn eligible(strategy: &Strategy) -> Option<String> {
    match strategy {
        Strategy::Band(band) => {
            let low = band.low.map(|low| format!("score >= {low:?}"));
            let high = band.high.map(|high| format!("score <= {high:?}"));
            let bounds: Vec<String> = low.into_iter().chain(high).collect();
            (!bounds.is_empty()).then(|| format!("score IS NULL OR ({})", bounds.join(" AND ")))
        }
        Strategy::SkipUninformative(settings) => {
            Some(format!("gap IS NULL OR gap > 0 OR CAST(draw AS DOUBLE) / {DRAW_COUNT:?} + 0.5 < {:?}", settings.explore))
        }
        Strategy::LowestReward
        | Strategy::HighestReward
        | Strategy::Random
        | Strategy::All
        | Strategy::RewardGain
        | Strategy::DropHardest(_)
        | Strategy::ZScore(_)
        | Strategy::ExpectedGain(_)
        | Strategy::Posterior(_) => None,
    }
}

/// The tier of a prompt; `None` if all prompts have the same one.
fn tier(settings: &Select, iteration: u32) -> Option<String> {
    let overdue = settings.max_age.map(|age| format!("WHEN sampled_iteration <= {} THEN 0", i64::from(iteration) - i64::from(age)));
    let eligible = eligible(&settings.strategy).map(|eligible| format!("WHEN {eligible} THEN 1"));
    match (overdue, eligible) {
        (None, None) => (strategy(settings).dropped_share() > 0.0).then(|| "1".to_string()),
        (Some(overdue), None) => Some(format!("CASE {overdue} ELSE 1 END")),
        (None, Some(eligible)) => Some(format!("CASE {eligible} ELSE 2 END")),
        (Some(overdue), Some(eligible)) => Some(format!("CASE {overdue} {eligible} ELSE 2 END")),
    }
}
