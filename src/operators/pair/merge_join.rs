//! Pairs in one pass over the pool, sorted by its key.
//!
//! The same rows as `reference_sql`, faster: the responses of a prompt are neighbors. Knows how the
//! pool is read, not how responses are rejected and pairs weighted.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{sum, take};
use arrow::datatypes::DataType;

use super::rejection::{Candidate, RejectionRule, rejection_rule};
use super::truncation::pool_query;
use super::weight::{pair_weight, raw_weight};
use crate::operators::OperatorError;
use crate::operators::support::rng;
use crate::operators::support::running_spread::{RunningSpread, Spread};
use crate::pipeline::spec::pair::{Normalize, Pair, Weight};
use crate::sql::{PromptGroups, PromptRows, Session};
use crate::tables::{column, pairs, pool};

/// Name of this module in internal errors.
const PLACE: &str = "operators::pair::merge_join";

/// The pairs from the table `pool` of a session: the rows of [`sql`](super::sql). The pool must be
/// sorted by its key. It is read twice if weights are normalized: their mean is needed before the
/// first pair.
///
/// # Errors
/// There is no table `pool`, or a row is out of order. Later errors come instead of a batch.
pub fn rows<'s>(
    session: &'s Session,
    settings: &Pair,
    stream: rng::Stream,
    prompt_groups: impl Fn() -> PromptGroups<'s>,
) -> Result<Rows<'s>, OperatorError> {
    let pool = || -> Result<PromptGroups<'s>, OperatorError> {
        let rows = session.rows(&pool_query(settings, false))?;
        Ok(prompt_groups().with_table("pool", pool::KEY, rows))
    };
    let rule = rejection_rule(settings.rejected);
    let mean_weight = match settings.weight.normalize {
        Normalize::None => None,
        Normalize::Mean => Some(finite("mean weight", mean_weight(&settings.weight, rule, stream, pool()?)?)?),
    };
    Ok(Rows { weight: settings.weight.clone(), rule, stream, mean_weight, pool: pool()?, prompts: 0 })
}

/// The pairs, batch by batch.
pub struct Rows<'s> {
    weight: Weight,
    rule: &'static dyn RejectionRule,
    stream: rng::Stream,
    /// `None` if weights are not normalized.
    mean_weight: Option<f64>,
    pool: PromptGroups<'s>,
    prompts: i64,
}

impl Rows<'_> {
    /// The number of prompts read so far.
    pub fn prompts(&self) -> i64 {
        self.prompts
    }

    fn pairs(&mut self, group: &[RecordBatch]) -> Result<RecordBatch, OperatorError> {
        let pairs = ResponsePairs::new(pool_of(group)?, self.rule, self.stream)?;
        self.prompts += pairs.prompts;
        pairs.into_batch(&self.weight, self.mean_weight)
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, OperatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.pool.next()?;
        Some(group.map_err(OperatorError::from).and_then(|group| self.pairs(&group)))
    }
}

/// The batch of the pool in a group of prompts.
fn pool_of(group: &[RecordBatch]) -> Result<&RecordBatch, OperatorError> {
    match group {
        [pool] => Ok(pool),
        other => Err(OperatorError::internal(PLACE, format!("expected one table, found {}", other.len()))),
    }
}

/// The mean of all raw weights. Arrow's `sum` adds in the same order as `avg` in SQL.
fn mean_weight(weight: &Weight, rule: &dyn RejectionRule, stream: rng::Stream, pool: PromptGroups) -> Result<f64, OperatorError> {
    let mut weights = Vec::new();
    for group in pool {
        let group = group?;
        let pairs = ResponsePairs::new(pool_of(&group)?, rule, stream)?;
        if pairs.gaps.iter().any(|gap| !gap.is_finite()) {
            // The check of the table names its row.
            return Ok(1.0);
        }
        weights.extend(pairs.gaps.iter().map(|gap| raw_weight(weight, *gap)));
    }
    let weights = Float64Array::from(weights);
    // Without a pair, no weight is divided by it.
    Ok(sum(&weights).map_or(0.0, |sum| sum / weights.len() as f64))
}

/// A weight, or the mean of weights, that is a number: large gaps can be too large for `exp`.
fn finite(what: &str, weight: f64) -> Result<f64, OperatorError> {
    if weight.is_finite() {
        return Ok(weight);
    }
    let problem = format!("expected a finite {what} of the pairs, found {weight}: the reward gaps are too large for it; lower gap_scale");
    Err(OperatorError::Input(problem))
}

/// The chosen and the rejected response of each prompt with different rewards, in one batch of the
/// pool.
struct ResponsePairs<'a> {
    pool: &'a RecordBatch,
    /// Row of the chosen response of each pair in the pool.
    chosen: Vec<u32>,
    /// Row of the rejected response of each pair in the pool.
    rejected: Vec<u32>,
    /// Reward of the chosen response minus reward of the rejected one.
    gaps: Vec<f64>,
    /// The number of prompts, with and without a pair.
    prompts: i64,
}

impl<'a> ResponsePairs<'a> {
    fn new(pool: &'a RecordBatch, rule: &dyn RejectionRule, stream: rng::Stream) -> Result<Self, OperatorError> {
        let rewards: &Float64Array = column(pool, "reward")?;
        let indices: &Int32Array = column(pool, "response_index")?;
        let mut pairs = Self { pool, chosen: Vec::new(), rejected: Vec::new(), gaps: Vec::new(), prompts: 0 };
        for (prompt_id, rows) in PromptRows::new(pool)?.iter() {
            pairs.prompts += 1;
            let chosen = best_response(rewards, rows.clone())
                .ok_or_else(|| OperatorError::internal(PLACE, format!("prompt {prompt_id} has no rows")))?;
            let highest = rewards.value(chosen);
            let spread = if rule.needs_spread() { spread(&rewards.values()[rows.clone()]) } else { Spread::default() };
            let candidates = rows.filter(|row| highest - rewards.value(*row) > 0.0);
            let ranked = candidates.map(|row| {
                let reward = rewards.value(row);
                let candidate = Candidate { prompt_id, response_index: indices.value(row), reward, spread, stream };
                (rule.rank(&candidate), reward, row)
            });
            // Of equal candidates, `min_by` returns the first.
            let least = ranked
                .min_by(|(rank, reward, _), (other_rank, other_reward, _)| rank.total_cmp(other_rank).then(reward.total_cmp(other_reward)));
            if let Some((_, reward, rejected)) = least {
                pairs.chosen.push(chosen as u32);
                pairs.rejected.push(rejected as u32);
                pairs.gaps.push(highest - reward);
            }
        }
        Ok(pairs)
    }

    /// The rows of the table of pairs. `mean_weight` is `None` if weights are not normalized.
    fn into_batch(self, settings: &Weight, mean_weight: Option<f64>) -> Result<RecordBatch, OperatorError> {
        let ids: &StringArray = column(self.pool, "prompt_id")?;
        let sampled_iterations: &Int32Array = column(self.pool, "sampled_iteration")?;
        let indices: &Int32Array = column(self.pool, "response_index")?;
        let weights = self.gaps.iter().map(|gap| match pair_weight(settings, mean_weight, *gap) {
            weight if gap.is_finite() => finite("weight", weight),
            weight => Ok(weight),
        });
        let weights = Float64Array::from(weights.collect::<Result<Vec<_>, OperatorError>>()?);
        let chosen = UInt32Array::from(self.chosen);
        let rejected = UInt32Array::from(self.rejected);
        let logprobs = new_null_array(&DataType::Float64, self.gaps.len());
        Ok(RecordBatch::try_new(
            pairs::schema(),
            vec![
                take(ids, &chosen, None)?,
                take(sampled_iterations, &chosen, None)?,
                take(indices, &chosen, None)?,
                take(sampled_iterations, &rejected, None)?,
                take(indices, &rejected, None)?,
                Arc::new(Float64Array::from(self.gaps)),
                Arc::new(weights),
                logprobs.clone(),
                logprobs,
            ],
        )?)
    }
}

/// The row with the highest reward, the first of equal ones. Rows are sorted by response_index,
/// then sampled_iteration.
fn best_response(rewards: &Float64Array, rows: Range<usize>) -> Option<usize> {
    rows.reduce(|best, row| if rewards.value(row).total_cmp(&rewards.value(best)).is_gt() { row } else { best })
}

/// Mean and standard deviation of the rewards of one prompt.
fn spread(rewards: &[f64]) -> Spread {
    let mut spread = RunningSpread::default();
    rewards.iter().for_each(|reward| spread.add(*reward));
    spread.spread()
}
