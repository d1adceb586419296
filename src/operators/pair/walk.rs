//! Pairs made on one way through the pool: what [`sql`](super::sql) says, faster.

use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::sum;
use arrow::datatypes::DataType;

use super::weight::{raw, weight};
use super::{Candidate, Rejection, rejection};
use crate::operators::OperatorError;
use crate::operators::support::rng;
use crate::pipeline::spec::pair::{Normalize, Pair, Weight};
use crate::sql::{PromptGroups, Session};
use crate::tables::{column, pairs, pool};

/// What [`sql`](super::sql) says of the table `pool` of a session, whose rows are in the order of its key. The pool is read once more where all
/// weights must be known before the first pair.
///
/// # Errors
/// There is no such table. A row that is not in its place is an error, maybe in the place of a batch.
pub fn rows<'s>(
    session: &'s Session,
    settings: &Pair,
    stream: rng::Stream,
    slices: impl Fn() -> PromptGroups<'s>,
) -> Result<Rows<'s>, OperatorError> {
    let pool = || {
        let rows = session.rows("SELECT prompt_id, response_index, sampled_iteration, reward FROM pool")?;
        Ok::<_, OperatorError>(slices().with("pool", pool::KEY, rows))
    };
    let rejection = rejection(settings.rejected);
    let mean = match settings.weight.normalize {
        Normalize::None => None,
        Normalize::Mean => Some(mean_weight(&settings.weight, rejection, stream, pool()?)?),
    };
    Ok(Rows { weight: settings.weight.clone(), rejection, stream, mean, slices: pool()?, prompts: 0 })
}

/// The pairs, batch by batch.
pub struct Rows<'s> {
    weight: Weight,
    rejection: &'static dyn Rejection,
    stream: rng::Stream,
    mean: Option<f64>,
    slices: PromptGroups<'s>,
    prompts: i64,
}

impl Rows<'_> {
    /// How many prompts were seen so far.
    pub fn prompts(&self) -> i64 {
        self.prompts
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, OperatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let slice = self.slices.next()?;
        Some(slice.map_err(OperatorError::from).and_then(|slice| {
            let paired = PairTokens::of(&slice[0], self.rejection, self.stream)?;
            self.prompts += paired.prompts;
            paired.weighted(&self.weight, self.mean)
        }))
    }
}

/// The mean of all weights, summed up as SQL's `avg` does.
fn mean_weight(weight: &Weight, rejection: &dyn Rejection, stream: rng::Stream, pool: PromptGroups) -> Result<f64, OperatorError> {
    let mut weights = Vec::new();
    for slice in pool {
        weights.extend(PairTokens::of(&slice?[0], rejection, stream)?.gaps.iter().map(|gap| raw(weight, *gap)));
    }
    let weights = Float64Array::from(weights);
    Ok(sum(&weights).unwrap_or(0.0) / weights.len() as f64)
}

/// The chosen and the rejected response of each prompt of a slice of the pool whose responses differ in reward.
struct PairTokens<'a> {
    pool: &'a RecordBatch,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
    gaps: Vec<f64>,
    prompts: i64,
}

impl<'a> PairTokens<'a> {
    fn of(pool: &'a RecordBatch, rejection: &dyn Rejection, stream: rng::Stream) -> Result<Self, OperatorError> {
        let (ids, rewards, indices): (&StringArray, &Float64Array, &Int32Array) =
            (column(pool, "prompt_id")?, column(pool, "reward")?, column(pool, "response_index")?);
        let mut found = Self { pool, chosen: Vec::new(), rejected: Vec::new(), gaps: Vec::new(), prompts: 0 };
        let mut start = 0;
        while start < ids.len() {
            let prompt_id = ids.value(start);
            let (mut chosen, mut end) = (start, start + 1);
            // In the order of response_index and sampled_iteration, so of equal rewards the first counts.
            while end < ids.len() && ids.value(end) == prompt_id {
                if rewards.value(end).total_cmp(&rewards.value(chosen)).is_gt() {
                    chosen = end;
                }
                end += 1;
            }
            let (mean, deviation) = if rejection.by_spread() { spread(&rewards.values()[start..end]) } else { (0.0, 0.0) };
            let worse = (start..end).filter(|row| rewards.value(chosen) - rewards.value(*row) > 0.0);
            let placed = worse.map(|row| {
                let (response_index, reward) = (indices.value(row), rewards.value(row));
                let candidate = Candidate { prompt_id, response_index, reward, mean, deviation, stream };
                ((rejection.place(&candidate), reward), row)
            });
            // The first of those that are alike.
            let least = placed.min_by(|((one, reward), _), ((other, than), _)| one.total_cmp(other).then(reward.total_cmp(than)));
            if let Some((_, rejected)) = least {
                found.chosen.push(chosen as u32);
                found.rejected.push(rejected as u32);
                found.gaps.push(rewards.value(chosen) - rewards.value(rejected));
            }
            found.prompts += 1;
            start = end;
        }
        Ok(found)
    }

    /// The pairs, with their weights divided by `mean` if there is one.
    fn weighted(self, settings: &Weight, mean: Option<f64>) -> Result<RecordBatch, OperatorError> {
        let weights = Float64Array::from_iter_values(self.gaps.iter().map(|gap| weight(settings, mean, *gap)));
        let (ids, sampled_iteration, indices): (&StringArray, &Int32Array, &Int32Array) =
            (column(self.pool, "prompt_id")?, column(self.pool, "sampled_iteration")?, column(self.pool, "response_index")?);
        let pick = |numbers: &Int32Array, rows: &[u32]| {
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| numbers.value(*row as usize)))) as _
        };
        let unknown = new_null_array(&DataType::Float64, self.gaps.len());
        Ok(RecordBatch::try_new(
            pairs::schema(),
            vec![
                Arc::new(StringArray::from_iter_values(self.chosen.iter().map(|row| ids.value(*row as usize)))) as _,
                pick(sampled_iteration, &self.chosen),
                pick(indices, &self.chosen),
                pick(sampled_iteration, &self.rejected),
                pick(indices, &self.rejected),
                Arc::new(Float64Array::from(self.gaps)),
                Arc::new(weights),
                unknown.clone(),
                unknown,
            ],
        )?)
    }
}

/// Mean and standard deviation of the rewards of one prompt, by Welford's sums.
fn spread(rewards: &[f64]) -> (f64, f64) {
    let (mut mean, mut squares) = (0.0, 0.0);
    for (count, reward) in (1..).zip(rewards) {
        let distance = reward - mean;
        mean += distance / f64::from(count);
        squares += distance * (reward - mean);
    }
    (mean, (squares / rewards.len() as f64).sqrt())
}
