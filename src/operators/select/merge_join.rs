//! The selection as a merge join of tables sorted by prompt_id, followed by one sort.
//!
//! The same rows as `reference_sql`, faster: the rewards of a prompt are neighbors, so its score
//! needs neither a hash table nor a sort. Knows how tables are read, not how strategies rank.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int8Array, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::population::Population;
use super::quota::{Quota, SelectedRanks};
use super::sorted_tables::{SortedTables, sorted_tables};
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
    let Population { group_spreads, mut predictor } = Population::new(settings, tables)?;
    let has_prediction = predictor.is_some();
    let has_key = strategy.order().has_key();
    let has_tiers = settings.max_age.is_some() || strategy.excludes_prompts() || strategy.dropped_share() > 0.0;
    let schema = scored_schema(has_prediction, has_key, has_tiers);
    let (sender, scored) = sync_channel(1);
    ranking.register_rows("scored", schema.clone(), scored)?;
    let tier = if has_tiers { "tier, " } else { "" };
    let order = strategy.order().sql();
    let predicted = if has_prediction { ", expected_gain, expected_tokens" } else { "" };
    let ranked = ranking.rows(&format!("SELECT prompt_id, score{predicted} FROM scored ORDER BY {tier}{order}, prompt_index"))?;
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
        let mut scores = Vec::with_capacity(tables.prompt_ids.len());
        let mut gains = Vec::with_capacity(if has_prediction { tables.prompt_ids.len() } else { 0 });
        let mut tokens = Vec::with_capacity(if has_prediction { tables.prompt_ids.len() } else { 0 });
        let mut keys = Vec::with_capacity(if has_key { tables.prompt_ids.len() } else { 0 });
        let mut tiers = Vec::with_capacity(if has_tiers { tables.prompt_ids.len() } else { 0 });
        tables.for_each_prompt(settings, |rows| {
            let prompt = RankedPrompt {
                id: rows.id,
                rewards: rows.rewards,
                score: rows.score,
                previous_score: rows.previous_score,
                sampled_iteration: rows.sampled_iteration,
                group_spread: group_spreads.as_ref().map_or(Spread::default(), |spreads| spreads.of_group(rows.group)),
                expected_gain: predictor.as_mut().and_then(|predictor| predictor.gain(rows.rewards)),
                expected_tokens: predictor.as_ref().map(|predictor| predictor.tokens(rows.token_counts)),
                stream,
            };
            scores.push(prompt.score);
            if has_prediction {
                gains.push(prompt.expected_gain);
                tokens.push(prompt.expected_tokens);
            }
            if has_key {
                keys.push(strategy.key(&prompt));
            }
            let tier = if is_overdue(&prompt) {
                overdue += 1;
                Tier::Overdue
            } else if strategy.is_eligible(&prompt) {
                eligible += 1;
                Tier::Eligible
            } else {
                Tier::Ineligible
            };
            if has_tiers {
                tiers.push(tier as i8);
            }
        })?;
        let first = prompt_count;
        prompt_count += tables.prompt_ids.len() as i64;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(tables.prompt_ids.clone()),
            Arc::new(Float64Array::from(scores)),
            Arc::new(Int64Array::from_iter_values(first..prompt_count)),
        ];
        if has_prediction {
            columns.push(Arc::new(Float64Array::from(gains)));
            columns.push(Arc::new(Float64Array::from(tokens)));
        }
        if has_key {
            columns.push(Arc::new(Float64Array::from(keys)));
        }
        if has_tiers {
            columns.push(Arc::new(Int8Array::from(tiers)));
        }
        // Sending fails once the ranking query has failed. Its rows then return the error.
        if sender.send(RecordBatch::try_new(schema.clone(), columns)?).is_err() {
            break;
        }
    }
    drop(sender);
    Ok(Rows { ranked, selected_ranks: quota.ranks(overdue, eligible), budget: settings.tokens, spent: 0.0, row_count: 0, selected: 0 })
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
        let (ids, scores, prediction) = match ranked.columns() {
            [ids, scores] => (ids, scores, None),
            [ids, scores, gains, tokens] => (ids, scores, Some((gains, tokens))),
            other => return Err(OperatorError::internal(PLACE, format!("expected two or four ranked columns, found {}", other.len()))),
        };
        let expected_tokens: Option<&Float64Array> = match (self.budget, prediction) {
            (Some(_), Some(_)) => Some(column(ranked, "expected_tokens")?),
            _ => None,
        };
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
        let nulls = || new_null_array(&DataType::Float64, ranked.num_rows());
        let (gains, tokens) = prediction.map_or_else(|| (nulls(), nulls()), |(gains, tokens)| (gains.clone(), tokens.clone()));
        let columns: Vec<ArrayRef> =
            vec![ids.clone(), scores.clone(), Arc::new(ranks), Arc::new(BooleanArray::from(selected)), gains, tokens];
        Ok(RecordBatch::try_new(selection::schema(), columns)?)
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
fn scored_schema(has_prediction: bool, has_key: bool, has_tiers: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("prompt_id", DataType::Utf8, false),
        Field::new("score", DataType::Float64, true),
        Field::new("prompt_index", DataType::Int64, false),
    ];
    if has_prediction {
        fields.push(Field::new("expected_gain", DataType::Float64, true));
        fields.push(Field::new("expected_tokens", DataType::Float64, true));
    }
    if has_key {
        fields.push(Field::new("key", DataType::Float64, true));
    }
    if has_tiers {
        fields.push(Field::new("tier", DataType::Int8, false));
    }
    Arc::new(Schema::new(fields))
}
