//! The selection as a merge join of tables sorted by prompt_id, followed by one sort.
//!
//! The same rows as `reference_sql`, faster: the rewards of a prompt are neighbors, so its score
//! needs neither a hash table nor a sort. Knows how tables are read, not how strategies rank.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::queries::text_column;
use super::quota::{Quota, SelectedRanks};
use super::strategies::{RankedPrompt, strategy};
use crate::operators::OperatorError;
use crate::operators::support::rng;
use crate::operators::support::running_spread::{RunningSpread, Spread};
use crate::pipeline::spec::select::{RankBy, Select};
use crate::sql::{PromptGroups, PromptRows, Rows as QueryRows, Session};
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
    /// The query for the pool's rows `prompt_id, reward, sampled_iteration`, in ascending order of
    /// prompt_id: [`POOL_QUERY`], or a query with a sort.
    pub pool_query: &'a str,
}

/// The rows of a pool. Its table is sorted by prompt_id.
pub const POOL_QUERY: &str = "SELECT prompt_id, reward, sampled_iteration FROM pool";

/// The selection from the tables `prompts`, `pool` and, for some strategies, `previous` of a
/// session, batch by batch: the rows of [`sql`](super::sql).
///
/// A random number depends on `stream` and the prompt_id only, so neither the order nor the number
/// of prompts matters. The session `ranking` sorts while the tables are read. It must have its own
/// memory limit. The tables are read twice if the strategy compares groups.
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
    let group_spreads = match strategy.group_column() {
        Some(_) => Some(GroupSpreads::new(tables()?, settings, stream)?),
        None => None,
    };
    let has_key = strategy.order().has_key();
    let has_tiers = settings.max_age.is_some() || strategy.excludes_prompts() || strategy.dropped_share() > 0.0;
    let schema = scored_schema(has_key, has_tiers);
    let (sender, scored) = sync_channel(1);
    ranking.register_rows("scored", schema.clone(), scored)?;
    let tier = if has_tiers { "tier, " } else { "" };
    let order = strategy.order().sql();
    let ranked = ranking.rows(&format!("SELECT prompt_id, score FROM scored ORDER BY {tier}{order}, prompt_index"))?;
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
        let mut keys = Vec::with_capacity(if has_key { tables.prompt_ids.len() } else { 0 });
        let mut tiers = Vec::with_capacity(if has_tiers { tables.prompt_ids.len() } else { 0 });
        tables.for_each_prompt(settings, group_spreads.as_ref(), stream, |_, prompt| {
            scores.push(prompt.score);
            if has_key {
                keys.push(strategy.key(prompt));
            }
            let tier = if is_overdue(prompt) {
                overdue += 1;
                Tier::Overdue
            } else if strategy.is_eligible(prompt) {
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
    Ok(Rows { ranked, selected_ranks: quota.ranks(overdue, eligible), row_count: 0, selected: 0 })
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
    row_count: usize,
    selected: usize,
}

impl Rows<'_> {
    /// The number of prompts selected so far.
    pub fn selected(&self) -> usize {
        self.selected
    }

    fn selection(&mut self, ranked: &RecordBatch) -> Result<RecordBatch, OperatorError> {
        let [ids, scores] = ranked.columns() else {
            return Err(OperatorError::internal(PLACE, format!("expected two ranked columns, found {}", ranked.num_columns())));
        };
        let first = self.row_count + 1;
        self.row_count += ranked.num_rows();
        let selected: BooleanArray = (first..=self.row_count).map(|rank| Some(self.selected_ranks.contains(rank))).collect();
        self.selected += selected.true_count();
        let ranks = Int64Array::from_iter_values((first..=self.row_count).map(|rank| rank as i64));
        let columns: Vec<ArrayRef> = vec![ids.clone(), scores.clone(), Arc::new(ranks), Arc::new(selected)];
        Ok(RecordBatch::try_new(selection::schema(), columns)?)
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
fn scored_schema(has_key: bool, has_tiers: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("prompt_id", DataType::Utf8, false),
        Field::new("score", DataType::Float64, true),
        Field::new("prompt_index", DataType::Int64, false),
    ];
    if has_key {
        fields.push(Field::new("key", DataType::Float64, true));
    }
    if has_tiers {
        fields.push(Field::new("tier", DataType::Int8, false));
    }
    Arc::new(Schema::new(fields))
}

/// Reads the tables of a selection side by side.
fn sorted_tables<'s>(
    session: &'s Session,
    settings: &Select,
    pool_query: &str,
    prompt_groups: PromptGroups<'s>,
) -> Result<PromptGroups<'s>, OperatorError> {
    let group = strategy(settings).group_column().map_or(String::new(), |group| format!(", {} AS of_group", text_column(group)));
    let prompts = session.rows(&format!("SELECT prompt_id{group} FROM prompts ORDER BY prompt_id"))?;
    let tables = prompt_groups.with_table("prompts", selection::KEY, prompts);
    let tables = tables.with_table("pool", &[], session.rows(pool_query)?);
    if settings.previous.is_some() {
        let previous = session.rows("SELECT prompt_id, score FROM previous ORDER BY prompt_id")?;
        Ok(tables.with_table("previous", selection::KEY, previous))
    } else {
        Ok(tables)
    }
}

/// The columns of one group of prompts.
struct SortedTables<'a> {
    prompt_ids: &'a StringArray,
    /// The group of each prompt, if the strategy compares groups.
    group_names: Option<&'a StringArray>,
    pool: &'a RecordBatch,
    rewards: &'a Float64Array,
    sampled_iterations: &'a Int32Array,
    /// The last selection and its scores, if there is one.
    previous: Option<(&'a RecordBatch, &'a Float64Array)>,
}

impl<'a> SortedTables<'a> {
    /// The columns of the batches of [`sorted_tables`].
    fn new(tables: &'a [RecordBatch]) -> Result<Self, OperatorError> {
        let (prompts, pool, previous) = match tables {
            [prompts, pool] => (prompts, pool, None),
            [prompts, pool, previous] => (prompts, pool, Some((previous, column(previous, "score")?))),
            other => return Err(OperatorError::internal(PLACE, format!("expected two or three tables, found {}", other.len()))),
        };
        let has_groups = prompts.schema_ref().field_with_name("of_group").is_ok();
        Ok(Self {
            prompt_ids: column(prompts, "prompt_id")?,
            group_names: if has_groups { Some(column(prompts, "of_group")?) } else { None },
            pool,
            rewards: column(pool, "reward")?,
            sampled_iterations: column(pool, "sampled_iteration")?,
            previous,
        })
    }

    /// Calls `visit` with the row and the values of each prompt, in ascending order of prompt_id.
    fn for_each_prompt(
        &self,
        settings: &Select,
        group_spreads: Option<&GroupSpreads>,
        stream: rng::Stream,
        mut visit: impl FnMut(usize, &RankedPrompt),
    ) -> Result<(), OperatorError> {
        let mut pool_rows = PromptRows::new(self.pool)?;
        let mut previous = match self.previous {
            Some((previous, scores)) => Some((PromptRows::new(previous)?, scores)),
            None => None,
        };
        for row in 0..self.prompt_ids.len() {
            let id = self.prompt_ids.value(row);
            let responses = pool_rows.rows_of(id);
            let rewards = &self.rewards.values()[responses.clone()];
            let score = if rewards.is_empty() { None } else { Some(statistic(rewards, settings.rank_by)) };
            let previous_score = previous.as_mut().and_then(|(rows, scores)| {
                // At most one row: prompt_id is the key of a selection.
                let mut rows = rows.rows_of(id);
                rows.next().filter(|row| scores.is_valid(*row)).map(|row| scores.value(row))
            });
            let group_spread = group_spreads.map_or(Spread::default(), |spreads| spreads.of_group(self.group(row)));
            let sampled_iteration = self.sampled_iterations.values()[responses].iter().copied().max();
            visit(row, &RankedPrompt { id, rewards, score, previous_score, sampled_iteration, group_spread, stream });
        }
        Ok(())
    }

    /// The group of a prompt; `None` for a prompt without a group.
    fn group(&self, row: usize) -> Option<&'a str> {
        let names = self.group_names?;
        names.is_valid(row).then(|| names.value(row))
    }
}

/// Mean and standard deviation of the scores of each group.
#[derive(Default)]
struct GroupSpreads {
    named: HashMap<String, RunningSpread>,
    /// The prompts without a group.
    unnamed: RunningSpread,
}

impl GroupSpreads {
    /// Reads all tables once.
    fn new(prompt_groups: PromptGroups, settings: &Select, stream: rng::Stream) -> Result<Self, OperatorError> {
        let mut spreads = Self::default();
        for tables in prompt_groups {
            let tables = tables?;
            let tables = SortedTables::new(&tables)?;
            tables.for_each_prompt(settings, None, stream, |row, prompt| {
                if let Some(score) = prompt.score {
                    spreads.add(tables.group(row), score);
                }
            })?;
        }
        Ok(spreads)
    }

    fn add(&mut self, group: Option<&str>, score: f64) {
        let Some(name) = group else { return self.unnamed.add(score) };
        // A name is copied once a group, not once a prompt.
        match self.named.get_mut(name) {
            Some(spread) => spread.add(score),
            None => self.named.entry(name.to_string()).or_default().add(score),
        }
    }

    /// Zeros for a group without any score.
    fn of_group(&self, group: Option<&str>) -> Spread {
        match group {
            Some(name) => self.named.get(name).map_or(Spread::default(), RunningSpread::spread),
            None => self.unnamed.spread(),
        }
    }
}

/// The statistic of at least one reward.
fn statistic(rewards: &[f64], rank_by: RankBy) -> f64 {
    let least = || rewards.iter().copied().fold(f64::INFINITY, |least, reward| if reward < least { reward } else { least });
    let most = || rewards.iter().copied().fold(f64::NEG_INFINITY, |most, reward| if reward > most { reward } else { most });
    match rank_by {
        RankBy::Mean => rewards.iter().fold(0.0, |sum, reward| sum + reward) / rewards.len() as f64,
        RankBy::Min => least(),
        RankBy::Max => most(),
        RankBy::Gap => most() - least(),
    }
}
