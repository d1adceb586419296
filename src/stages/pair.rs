//! pair: the best and the worst response of each prompt, and how much the pair counts. Made from the pool.
//!
//! [`sql`] says what it is; it is made by a walk through the pool, which has its rows in the order of its prompts. Knows rewards within a
//! prompt; the reference's logprobs are filled in later, by the `reference` stage.

use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::sum;
use arrow::datatypes::DataType;

use super::{Context, StageError, Summary};
use crate::pipeline::spec::relational::{Normalize, Pair, Weight, WeightKind};
use crate::store::{Session, Slices};
use crate::tables::{TableKind, column, pairs, pool};

/// One pair a prompt whose responses differ in reward; prompts whose do not are counted as ties.
pub(super) fn run(context: &Context, settings: &Pair) -> Result<Summary, StageError> {
    let session = context.spilling_session()?;
    context.register(&session, "pool", "pool")?;
    let mut prompts = 0;
    let pairs = context.write_relation(TableKind::Pairs, |relation| {
        let mut rows = rows(&session, &settings.weight, Slices::default)?;
        rows.try_for_each(|batch| relation.write(&batch?))?;
        prompts = rows.prompts;
        Ok([("prompts", prompts), ("pairs", relation.rows()), ("ties", prompts - relation.rows())])
    })?;
    Ok(Summary::new(format!("{pairs} pairs, {} prompts without a difference in reward", prompts - pairs)))
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

/// What [`sql`] says of the table `pool` of a session, whose rows are in the order of its key. The pool is read once more where all
/// weights must be known before the first pair.
///
/// # Errors
/// There is no such table. A row that is not in its place is an error, maybe in the place of a batch.
pub fn rows<'s>(session: &'s Session, weight: &Weight, slices: impl Fn() -> Slices<'s>) -> Result<Rows<'s>, StageError> {
    let pool = || {
        let rows = session.rows("SELECT prompt_id, response_index, born, reward FROM pool")?;
        Ok::<_, StageError>(slices().with("pool", pool::KEY, rows))
    };
    let mean = match weight.normalize {
        Normalize::None => None,
        Normalize::Mean => Some(mean_weight(weight, pool()?)?),
    };
    Ok(Rows { weight: weight.clone(), mean, slices: pool()?, prompts: 0 })
}

/// The pairs, batch by batch.
pub struct Rows<'s> {
    weight: Weight,
    mean: Option<f64>,
    slices: Slices<'s>,
    /// How many prompts were seen so far.
    prompts: i64,
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let slice = self.slices.next()?;
        Some(slice.map_err(StageError::from).and_then(|slice| {
            let extremes = Extremes::of(&slice[0])?;
            self.prompts += extremes.prompts;
            extremes.weighted(&self.weight, self.mean)
        }))
    }
}

/// The mean of all weights, summed up as SQL's `avg` does.
fn mean_weight(weight: &Weight, pool: Slices) -> Result<f64, StageError> {
    let mut weights = Vec::new();
    for slice in pool {
        weights.extend(Extremes::of(&slice?[0])?.gaps.iter().map(|gap| raw(weight, *gap)));
    }
    let weights = Float64Array::from(weights);
    Ok(sum(&weights).unwrap_or(0.0) / weights.len() as f64)
}

/// The weight of a reward_gap by itself.
fn raw(weight: &Weight, gap: f64) -> f64 {
    match weight.kind {
        WeightKind::None => 1.0,
        WeightKind::Linear => weight.gap_scale * gap,
        WeightKind::Sigmoid => 1.0 / (1.0 + (-(weight.gap_scale * gap)).exp()),
    }
}

/// The best and the worst response of each prompt of a slice of the pool whose responses differ in reward.
struct Extremes<'a> {
    pool: &'a RecordBatch,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
    gaps: Vec<f64>,
    prompts: i64,
}

impl<'a> Extremes<'a> {
    fn of(pool: &'a RecordBatch) -> Result<Self, StageError> {
        let (ids, rewards): (&StringArray, &Float64Array) = (column(pool, "prompt_id")?, column(pool, "reward")?);
        let mut found = Self { pool, chosen: Vec::new(), rejected: Vec::new(), gaps: Vec::new(), prompts: 0 };
        let mut start = 0;
        while start < ids.len() {
            let id = ids.value(start);
            let (mut chosen, mut rejected, mut end) = (start, start, start + 1);
            // In the order of response_index, so of equal rewards the first counts.
            while end < ids.len() && ids.value(end) == id {
                if rewards.value(end).total_cmp(&rewards.value(chosen)).is_gt() {
                    chosen = end;
                }
                if rewards.value(end).total_cmp(&rewards.value(rejected)).is_lt() {
                    rejected = end;
                }
                end += 1;
            }
            let gap = rewards.value(chosen) - rewards.value(rejected);
            if gap > 0.0 {
                found.chosen.push(chosen as u32);
                found.rejected.push(rejected as u32);
                found.gaps.push(gap);
            }
            found.prompts += 1;
            start = end;
        }
        Ok(found)
    }

    /// The pairs, with their weights divided by `mean` if there is one.
    fn weighted(self, weight: &Weight, mean: Option<f64>) -> Result<RecordBatch, StageError> {
        let of_gap = |gap: &f64| {
            let raw = raw(weight, *gap);
            let normalized = mean.map_or(raw, |mean| raw / mean);
            weight.clip.map_or(normalized, |clip| normalized.min(clip))
        };
        let weights = Float64Array::from_iter_values(self.gaps.iter().map(of_gap));
        let (ids, born, indices): (&StringArray, &Int32Array, &Int32Array) =
            (column(self.pool, "prompt_id")?, column(self.pool, "born")?, column(self.pool, "response_index")?);
        let pick = |numbers: &Int32Array, rows: &[u32]| {
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| numbers.value(*row as usize)))) as _
        };
        let unknown = new_null_array(&DataType::Float64, self.gaps.len());
        Ok(RecordBatch::try_new(
            pairs::schema(),
            vec![
                Arc::new(StringArray::from_iter_values(self.chosen.iter().map(|row| ids.value(*row as usize)))) as _,
                pick(born, &self.chosen),
                pick(indices, &self.chosen),
                pick(born, &self.rejected),
                pick(indices, &self.rejected),
                Arc::new(Float64Array::from(self.gaps)),
                Arc::new(weights),
                unknown.clone(),
                unknown,
            ],
        )?)
    }
}
