//! pair: the best and the worst response of each prompt, and how much the pair counts. A plan over the pool.
//!
//! Knows rewards within a prompt; the reference's logprobs are filled in later, by the `reference` stage.

use super::{Context, StageError, Summary};
use crate::pipeline::spec::relational::{Normalize, Pair, Weight, WeightKind};
use crate::tables::TableKind;

/// One pair a prompt whose responses differ in reward; prompts whose do not are counted as ties.
pub(super) fn run(context: &Context, settings: &Pair) -> Result<Summary, StageError> {
    let session = context.session()?;
    context.register(&session, "pool", "pool")?;
    let prompts = session.count("SELECT count(DISTINCT prompt_id) FROM pool")?;
    let pairs = session.query(&sql(&settings.weight))?;
    let rows: usize = pairs.iter().map(|batch| batch.num_rows()).sum();
    let ties = prompts - rows as i64;
    context.write_relation(TableKind::Pairs, &pairs, [("prompts", prompts), ("pairs", rows as i64), ("ties", ties)])?;
    Ok(Summary::new(format!("{rows} pairs, {ties} prompts without a difference in reward")))
}

/// The plan as SQL over `pool`. Chosen: highest reward; rejected: lowest; ties by response_index.
///
/// The weight of a reward_gap g is 1, s·g or σ(s·g) with s = gap_scale; then divided by its mean over the iteration's pairs if
/// asked for, then cut at `clip`.
pub fn sql(weight: &Weight) -> String {
    let scale = weight.gap_scale;
    let raw = match weight.kind {
        WeightKind::None => "CAST(1 AS DOUBLE)".to_string(),
        WeightKind::Linear => format!("{scale:?} * reward_gap"),
        WeightKind::Sigmoid => format!("1.0 / (1.0 + exp(-({scale:?} * reward_gap)))"),
    };
    let normalized = match weight.normalize {
        Normalize::None => "raw",
        Normalize::Mean => "raw / avg(raw) OVER ()",
    };
    let clipped = match weight.clip {
        Some(clip) => format!("least(normalized, {clip:?})"),
        None => "normalized".to_string(),
    };
    let first = |column: &str, order: &str| format!("first_value({column} ORDER BY reward {order}, response_index)");
    format!(
        "WITH extremes AS (
  SELECT prompt_id,
         {chosen_born} AS chosen_born, {chosen_index} AS chosen_index,
         {rejected_born} AS rejected_born, {rejected_index} AS rejected_index,
         max(reward) - min(reward) AS reward_gap
  FROM pool GROUP BY prompt_id
), weighted AS (
  SELECT *, {raw} AS raw FROM extremes WHERE reward_gap > 0
), scaled AS (
  SELECT *, {normalized} AS normalized FROM weighted
)
SELECT prompt_id, chosen_born, chosen_index, rejected_born, rejected_index, reward_gap, {clipped} AS weight,
       CAST(NULL AS DOUBLE) AS reference_logprob_chosen, CAST(NULL AS DOUBLE) AS reference_logprob_rejected
FROM scaled
ORDER BY prompt_id",
        chosen_born = first("born", "DESC"),
        chosen_index = first("response_index", "DESC"),
        rejected_born = first("born", "ASC"),
        rejected_index = first("response_index", "ASC"),
    )
}
