//! The selection as a merge join of tables sorted by prompt_id, followed by one sort.
//!
//! The same rows as `reference_sql`, faster: the rewards of a prompt are neighbors, so its score
//! needs neither a hash table nor a sort. Knows how tables are read, not how strategies rank.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::population::Population;
use super::quota::{Quota, SelectedRanks};
use super::sorted_tables::{PromptRewards, SortedTables, sorted_tables};
use super::strategies::{RankedPrompt, strategy};
use crate::operators::OperatorError;
use crate::operators::support::rng;
use crate::operators::support::running_spread::Spread;
use crate::pipeline::spec::select::Select;
use crate::sql::{PromptGroups, Rows as QueryRows, Session};
use crate::tables::{column, selection};

/// Name of this module in internal errors.
const PLACE: &str = "operators::select::merge_join";

/// The parameters of a selection besides its tables.
#[derive(Clone, Copy)]
pub struct SelectionParameters<'a> {
    /// How prompts are ranked.
    pub settings: &'a Select,
    /// How many are selected.
    pub quota: Quota,
    /// The source of random numbers.
    pub stream: rng::Stream,
    /// The query for the pool's rows `prompt_id, reward, sampled_iteration, token_count`, in
    /// ascending order of prompt_id: [`POOL_QUERY`](super::POOL_QUERY), or a query with a sort.
    pub pool_query: &'a str,
}

/// The selection from the tables `prompts`, `pool` and, for some strategies, `previous` of a
/// session, batch by batch: the rows of [`sql`](super::sql).
///
/// A random number depends on `stream` and the prompt_id only, so neither the order nor the number
/// of prompts matters. The session `ranking` sorts while the tables are read. It must have its own
/// memory limit. The tables are read twice if the strategy compares groups or predicts. A
/// prediction keeps all rewards in memory.
///
/// # Errors
/// A table is missing, or a row of the pool is out of order. Later errors come instead of a batch.
pub fn rows<'s>(
    session: &'s Session,
    ranking: &'s Session,
    parameters: SelectionParameters,
    prompt_groups: impl Fn() -> PromptGroups<'s>,
) -> Result<Rows<'s>, OperatorError> {
    let SelectionParameters { settings, quota, stream, pool_query } = parameters;
    let strategy = strategy(settings);
    let tables = || sorted_tables(session, settings, pool_query, prompt_groups());
    let Population { group_spreads, mut predictor, beliefs } = Population::new(settings, tables)?;
    let has_key = strategy.order().has_key();
    let has_tiers = settings.max_age.is_some() || strategy.excludes_prompts() || strategy.dropped_share() > 0.0;
    let mut learnt: Vec<&str> = Vec::new();
    if predictor.is_some() {
        learnt.extend(["expected_gain", "expected_tokens"]);
    }
    if beliefs.is_some() {
        learnt.extend(["belief_mean", "belief_variance"]);
    }
    let schema = scored_schema(&learnt, has_key, has_tiers);
    let (sender, scored) = sync_channel(1);
    ranking.register_rows("scored", schema.clone(), scored)?;
    let tier = if has_tiers { "tier, " } else { "" };
    let order = strategy.order().sql();
    let columns = ["prompt_id", "score"].iter().chain(&learnt).copied().collect::<Vec<_>>().join(", ");
    let ranked = ranking.rows(&format!("SELECT {columns} FROM scored ORDER BY {tier}{order}, prompt_index"))?;
    // The latest iteration with responses older than the maximum age.
    let last_overdue = settings.max_age.map(|age| i64::from(stream.iteration) - i64::from(age));
    let is_overdue = |prompt: &RankedPrompt| match (last_overdue, prompt.sampled_iteration) {
        (Some(last_overdue), Some(sampled_iteration)) => i64::from(sampled_iteration) <= last_overdue,
        _ => false,
    };
    let mut prompt_count = 0;
    let mut overdue = 0;
    let mut eligible = 0;
    for tables in tables()? {
        let tables = tables?;
        let tables = SortedTables::new(&tables)?;
        let mut scored = ScoredPrompts::default();
        tables.for_each_prompt(settings, |rows| {
            let prompt = RankedPrompt {
                id: rows.id,
                rewards: rows.rewards,
                score: rows.score,
                previous_score: rows.previous_score,
                sampled_iteration: rows.sampled_iterations.iter().copied().max(),
                group_spread: group_spreads.as_ref().map_or(Spread::default(), |spreads| spreads.of_group(rows.group)),
                expected_gain: predictor.as_mut().and_then(|predictor| predictor.gain(rows.rewards)),
                expected_tokens: predictor.as_ref().map(|predictor| predictor.tokens(rows.token_counts)),
                belief: beliefs.as_ref().map(|beliefs| beliefs.after(rows.previous_belief, &new_rewards(rows, stream.iteration))),
                stream,
            };
            let tier = if is_overdue(&prompt) {
                overdue += 1;
                Tier::Overdue
            } else if strategy.is_eligible(&prompt) {
                eligible += 1;
                Tier::Eligible
            } else {
                Tier::Ineligible
            };
            scored.push(&prompt, strategy.key(&prompt), tier);
        })?;
        let batch = scored.into_batch(&schema, tables.prompt_ids, prompt_count)?;
        prompt_count += tables.prompt_ids.len() as i64;
        // Sending fails once the ranking query has failed. Its rows then return the error.
        if sender.send(batch).is_err() {
            break;
        }
    }
    drop(sender);
    Ok(Rows { ranked, selected_ranks: quota.ranks(overdue, eligible), budget: settings.tokens, spent: 0.0, row_count: 0, selected: 0 })
}

/// The rewards that the last belief does not know: those of the last iteration, or all without a
/// belief.
fn new_rewards(rows: &PromptRewards, iteration: u32) -> Vec<f64> {
    let is_new = |sampled: i32| rows.previous_belief.is_none() || i64::from(sampled) + 1 >= i64::from(iteration);
    rows.rewards.iter().zip(rows.sampled_iterations).filter(|(_, sampled)| is_new(**sampled)).map(|(reward, _)| *reward).collect()
}

/// The first column of the ranking; see [`sql`](super::sql).
#[derive(Clone, Copy)]
#[repr(i8)]
enum Tier {
    /// Selected in any case: its responses are too old.
    Overdue = 0,
    /// May be selected.
    Eligible = 1,
    /// May not be selected.
    Ineligible = 2,
}

/// The rows to rank: the columns of [`scored_schema`], prompt by prompt.
#[derive(Default)]
struct ScoredPrompts {
    scores: Vec<Option<f64>>,
    expected_gains: Vec<Option<f64>>,
    expected_tokens: Vec<Option<f64>>,
    belief_means: Vec<Option<f64>>,
    belief_variances: Vec<Option<f64>>,
    keys: Vec<Option<f64>>,
    tiers: Vec<i8>,
}

impl ScoredPrompts {
    fn push(&mut self, prompt: &RankedPrompt, key: Option<f64>, tier: Tier) {
        self.scores.push(prompt.score);
        self.expected_gains.push(prompt.expected_gain);
        self.expected_tokens.push(prompt.expected_tokens);
        self.belief_means.push(prompt.belief.map(|belief| belief.mean));
        self.belief_variances.push(prompt.belief.map(|belief| belief.variance));
        self.keys.push(key);
        self.tiers.push(tier as i8);
    }

    /// The columns that the ranking needs. `first` is the index of the first prompt.
    fn into_batch(mut self, schema: &SchemaRef, prompt_ids: &StringArray, first: i64) -> Result<RecordBatch, OperatorError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(match field.name().as_str() {
                "prompt_id" => Arc::new(prompt_ids.clone()),
                "prompt_index" => Arc::new(Int64Array::from_iter_values(first..first + prompt_ids.len() as i64)),
                "score" => Arc::new(Float64Array::from(std::mem::take(&mut self.scores))),
                "expected_gain" => Arc::new(Float64Array::from(std::mem::take(&mut self.expected_gains))),
                "expected_tokens" => Arc::new(Float64Array::from(std::mem::take(&mut self.expected_tokens))),
                "belief_mean" => Arc::new(Float64Array::from(std::mem::take(&mut self.belief_means))),
                "belief_variance" => Arc::new(Float64Array::from(std::mem::take(&mut self.belief_variances))),
                "key" => Arc::new(Float64Array::from(std::mem::take(&mut self.keys))),
                "tier" => Arc::new(Int8Array::from(std::mem::take(&mut self.tiers))),
                other => return Err(OperatorError::internal(PLACE, format!("a column {other} in the ranking"))),
            });
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

/// The selection, batch by batch, in ascending order of ranks.
pub struct Rows<'s> {
    ranked: QueryRows<'s>,
    selected_ranks: SelectedRanks,
    /// The budget in tokens.
    budget: Option<u32>,
    /// The expected tokens of the prompts selected so far.
    spent: f64,
    row_count: usize,
    selected: usize,
}

impl Rows<'_> {
    /// The number of prompts selected so far.
    pub fn selected(&self) -> usize {
        self.selected
    }

    fn selection(&mut self, ranked: &RecordBatch) -> Result<RecordBatch, OperatorError> {
        let expected_tokens: Option<&Float64Array> = self.budget.map(|_| column(ranked, "expected_tokens")).transpose()?;
        let first = self.row_count + 1;
        self.row_count += ranked.num_rows();
        let mut selected = Vec::with_capacity(ranked.num_rows());
        for row in 0..ranked.num_rows() {
            let is_selected = self.selected_ranks.contains(first + row, !self.is_spent());
            if is_selected {
                self.selected += 1;
                self.spent += expected_tokens.map_or(0.0, |tokens| tokens.value(row));
            }
            selected.push(is_selected);
        }
        let ranks = Int64Array::from_iter_values((first..=self.row_count).map(|rank| rank as i64));
        let ranks: ArrayRef = Arc::new(ranks);
        let selected: ArrayRef = Arc::new(BooleanArray::from(selected));
        let schema = selection::schema();
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "rank" => ranks.clone(),
            "selected" => selected.clone(),
            // Predictions are in the ranking only if something is predicted.
            name => ranked.column_by_name(name).cloned().unwrap_or_else(|| new_null_array(field.data_type(), ranked.num_rows())),
        });
        Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
    }

    /// Whether the prompts selected so far use up the budget.
    fn is_spent(&self) -> bool {
        self.budget.is_some_and(|budget| self.spent >= f64::from(budget))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, OperatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.ranked.next()?;
        Some(batch.map_err(OperatorError::from).and_then(|batch| self.selection(&batch)))
    }
}

/// The columns of the ranking. `prompt_index` counts prompts in ascending order of prompt_id.
fn scored_schema(learnt: &[&str], has_key: bool, has_tiers: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("prompt_id", DataType::Utf8, false),
        Field::new("score", DataType::Float64, true),
        Field::new("prompt_index", DataType::Int64, false),
    ];
    fields.extend(learnt.iter().map(|name| Field::new(*name, DataType::Float64, true)));
    if has_key {
        fields.push(Field::new("key", DataType::Float64, true));
    }
    if has_tiers {
        fields.push(Field::new("tier", DataType::Int8, false));
    }
    Arc::new(Schema::new(fields))
}
