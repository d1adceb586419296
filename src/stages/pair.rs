//! pair: the best and the worst response of each prompt, and how much the pair counts. A plan over the pool.
//!
//! Knows rewards within a prompt; the reference's logprobs are filled in later, by the `reference` stage.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};

use super::{Context, StageError, Summary};
use crate::pipeline::spec::relational::{Normalize, Pair, Weight, WeightKind};
use crate::store::{Session, Slices, StoreError};
use crate::tables::TableKind;

/// One pair a prompt whose responses differ in reward; prompts whose do not are counted as ties.
pub(super) fn run(context: &Context, settings: &Pair) -> Result<Summary, StageError> {
    let (session, weight) = (context.spilling_session()?, &settings.weight);
    context.register(&session, "pool", "pool")?;
    let mean = match weight.normalize {
        Normalize::None => None,
        Normalize::Mean => Some(mean_weight(&session, weight)?),
    };
    let mut ties = 0;
    let pairs = context.write_relation(TableKind::Pairs, |relation| {
        let query = format!("WITH {}{}", weighted(weight), scaled(weight, mean));
        let prompts = pool(&session)?.query(&query, &mut |batch| relation.write(&batch))?["pool"] as i64;
        ties = prompts - relation.rows();
        Ok([("prompts", prompts), ("pairs", relation.rows()), ("ties", ties)])
    })?;
    Ok(Summary::new(format!("{pairs} pairs, {ties} prompts without a difference in reward")))
}

/// The pool, a slice at a time.
fn pool(session: &Session) -> Result<Slices<'_>, StoreError> {
    let mut slices = Slices::default();
    slices.add("pool", session.rows("SELECT prompt_id, response_index, born, reward FROM pool")?);
    Ok(slices)
}

/// The mean over all pairs of the weight before it is divided by that.
fn mean_weight(session: &Session, weight: &Weight) -> Result<f64, StageError> {
    let (mut sum, mut count) = (0.0, 0);
    let query = format!("WITH {}\nSELECT sum(raw), count(*) FROM weighted", weighted(weight));
    pool(session)?.query::<StageError>(&query, &mut |batch| {
        // No pairs, no sum: null, whose value is 0.
        sum += batch.column(0).as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        count += batch.column(1).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    })?;
    Ok(sum / count.max(1) as f64)
}

/// The plan as SQL over `pool`. Chosen: highest reward; rejected: lowest; ties by response_index.
///
/// The weight of a reward_gap g is 1, s·g or σ(s·g) with s = gap_scale; then divided by its mean over the iteration's pairs if
/// asked for, then cut at `clip`.
pub fn sql(weight: &Weight) -> String {
    format!("WITH {}{}", weighted(weight), scaled(weight, None))
}

/// The pairs with their weights as they follow from the gaps, behind `WITH`.
fn weighted(weight: &Weight) -> String {
    let scale = weight.gap_scale;
    let raw = match weight.kind {
        WeightKind::None => "CAST(1 AS DOUBLE)".to_string(),
        WeightKind::Linear => format!("{scale:?} * reward_gap"),
        WeightKind::Sigmoid => format!("1.0 / (1.0 + exp(-({scale:?} * reward_gap)))"),
    };
    let first = |column: &str, order: &str| format!("first_value({column} ORDER BY reward {order}, response_index)");
    format!(
        "extremes AS (
  SELECT prompt_id,
         {chosen_born} AS chosen_born, {chosen_index} AS chosen_index,
         {rejected_born} AS rejected_born, {rejected_index} AS rejected_index,
         max(reward) - min(reward) AS reward_gap
  FROM pool GROUP BY prompt_id
), weighted AS (
  SELECT *, {raw} AS raw FROM extremes WHERE reward_gap > 0
)",
        chosen_born = first("born", "DESC"),
        chosen_index = first("response_index", "DESC"),
        rejected_born = first("born", "ASC"),
        rejected_index = first("response_index", "ASC"),
    )
}

/// The pairs as they are kept, over `weighted`; the mean weight's formula stands in its place where it is not known.
fn scaled(weight: &Weight, mean: Option<f64>) -> String {
    let normalized = match (weight.normalize, mean) {
        (Normalize::None, _) => "raw".to_string(),
        (Normalize::Mean, Some(mean)) => format!("raw / {mean:?}"),
        (Normalize::Mean, None) => "raw / avg(raw) OVER ()".to_string(),
    };
    let clipped = match weight.clip {
        Some(clip) => format!("least(normalized, {clip:?})"),
        None => "normalized".to_string(),
    };
    format!(
        ", scaled AS (
  SELECT *, {normalized} AS normalized FROM weighted
)
SELECT prompt_id, chosen_born, chosen_index, rejected_born, rejected_index, reward_gap, {clipped} AS weight,
       CAST(NULL AS DOUBLE) AS reference_logprob_chosen, CAST(NULL AS DOUBLE) AS reference_logprob_rejected
FROM scaled
ORDER BY prompt_id"
    )
}
