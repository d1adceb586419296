//! What a selection is, as SQL: for people to read, and to hold the walk against.

use super::{Quota, ratio, rule};
use crate::pipeline::spec::select::{RankBy, Select};

/// The plan as SQL over `prompts(prompt_id, draw)` and, after the first iteration, `pool` and `previous`, the last selection.
///
/// Prompts without a reward come first: nothing is known of them, so they are asked again. Ties go by prompt_id.
/// `quota` is how many to select; where it is not known, for people to read, its formulas stand in its place.
///
/// Where not every prompt may be selected, `tier` is 0 for prompts that are selected in any case, 1 for those that may be and 2 for others.
pub fn sql(settings: &Select, iteration: u32, quota: Option<Quota>, pool: bool) -> String {
    if !pool {
        return "SELECT prompt_id, CAST(NULL AS DOUBLE) AS score, CAST(row_number() OVER (ORDER BY prompt_id) AS BIGINT) AS rank,\n       \
                TRUE AS selected\nFROM prompts\nORDER BY rank"
            .to_string();
    }
    let rule = rule(settings);
    let statistic = match settings.rank_by {
        RankBy::Mean => "avg(reward)",
        RankBy::Min => "min(reward)",
        RankBy::Max => "max(reward)",
        RankBy::Gap => "max(reward) - min(reward)",
    };
    let of_prompts = |product: &str, share: f64| format!("(SELECT {product}({share:?} * count(*)) FROM prompts)");
    let count = quota.map_or_else(|| of_prompts("ceil", ratio(settings, iteration)), |quota| quota.count.to_string());
    let dropped = quota.map_or_else(|| of_prompts("floor", rule.dropped()), |quota| quota.dropped.to_string());
    let (mut columns, mut order, mut quotas, mut from) = (String::new(), rule.order().to_string(), String::new(), "ranked");
    let mut prompts = "prompts".to_string();
    let mut selected = format!("rank <= {count}");
    if let Some(group) = rule.group() {
        prompts = format!("(SELECT *, {} AS of_group FROM prompts) AS prompts", text_column(group));
    }
    if let Some(key) = rule.key_sql() {
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
    let previous = match settings.previous {
        Some(_) => "\n  LEFT JOIN (SELECT prompt_id, score AS before FROM previous) AS previous ON prompts.prompt_id = previous.prompt_id",
        None => "",
    };
    format!(
        "WITH statistic AS (
  SELECT prompt_id, {statistic} AS score, max(reward) - min(reward) AS gap, max(sampled_iteration) AS sampled_iteration FROM pool GROUP BY prompt_id
), known AS (
  SELECT prompts.prompt_id, score{columns}
  FROM {prompts} LEFT JOIN statistic ON prompts.prompt_id = statistic.prompt_id{previous}
), ranked AS (
  SELECT *, CAST(row_number() OVER (ORDER BY {order}, prompt_id) AS BIGINT) AS rank FROM known
){quotas}
SELECT prompt_id, score, rank, {selected} AS selected
FROM {from}
ORDER BY rank"
    )
}

/// A column of the user's, whose name may be anything, as text.
pub(super) fn text_column(name: &str) -> String {
    format!("CAST(\"{}\" AS VARCHAR)", name.replace('"', "\"\""))
}

/// Which of three kinds a prompt is; none where all are alike.
fn tier(settings: &Select, iteration: u32) -> Option<String> {
    let rule = rule(settings);
    let overdue = settings.max_age.map(|age| format!("WHEN sampled_iteration <= {} THEN 0", i64::from(iteration) - i64::from(age)));
    let eligible = rule.eligible_sql().map(|eligible| format!("WHEN {eligible} THEN 1"));
    match (overdue, eligible) {
        (None, None) => (rule.dropped() > 0.0).then(|| "1".to_string()),
        (overdue, None) => Some(format!("CASE {} ELSE 1 END", overdue.unwrap_or_default())),
        (None, Some(eligible)) => Some(format!("CASE {eligible} ELSE 2 END")),
        (Some(overdue), Some(eligible)) => Some(format!("CASE {overdue} {eligible} ELSE 2 END")),
    }
}
