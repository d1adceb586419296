//! The tables of a selection, read side by side in the order of their prompts.
//!
//! Knows the columns, not the ranking.

use arrow::array::{Array, Float64Array, Int32Array, RecordBatch, StringArray};

use super::posterior::Belief;
use super::queries::text_column;
use super::strategies::strategy;
use crate::operators::OperatorError;
use crate::pipeline::spec::select::{RankBy, Select};
use crate::sql::{PromptGroups, PromptRows, Session};
use crate::tables::{column, selection};

/// Name of this module in internal errors.
const PLACE: &str = "operators::select::sorted_tables";

/// The rows of a pool. Its table is sorted by prompt_id.
pub const POOL_QUERY: &str = "SELECT prompt_id, reward, sampled_iteration, token_count FROM pool";

/// Reads the tables of a selection side by side. `pool_query` is [`POOL_QUERY`], or a query with
/// the same columns and a sort.
pub(super) fn sorted_tables<'s>(
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
        let previous = session.rows("SELECT prompt_id, score, belief_mean, belief_variance FROM previous ORDER BY prompt_id")?;
        Ok(tables.with_table("previous", selection::KEY, previous))
    } else {
        Ok(tables)
    }
}

/// The rows of one prompt.
pub(super) struct PromptRewards<'a> {
    /// Its prompt_id.
    pub(super) id: &'a str,
    /// Its group, if the strategy compares groups and it has one.
    pub(super) group: Option<&'a str>,
    /// The rewards of its responses in the pool.
    pub(super) rewards: &'a [f64],
    /// The lengths of these responses, in tokens.
    pub(super) token_counts: &'a [i32],
    /// The statistic of the rewards; `None` without any reward.
    pub(super) score: Option<f64>,
    /// The iterations in which these responses were sampled.
    pub(super) sampled_iterations: &'a [i32],
    /// The score in the last selection.
    pub(super) previous_score: Option<f64>,
    /// The belief of the last selection.
    pub(super) previous_belief: Option<Belief>,
}

/// The columns of one group of prompts.
pub(super) struct SortedTables<'a> {
    /// The prompts, in ascending order.
    pub(super) prompt_ids: &'a StringArray,
    /// The group of each prompt, if the strategy compares groups.
    group_names: Option<&'a StringArray>,
    pool: &'a RecordBatch,
    rewards: &'a Float64Array,
    token_counts: &'a Int32Array,
    sampled_iterations: &'a Int32Array,
    /// The last selection, if there is one.
    previous: Option<Previous<'a>>,
}

/// The columns of the last selection.
struct Previous<'a> {
    rows: &'a RecordBatch,
    scores: &'a Float64Array,
    belief_means: &'a Float64Array,
    belief_variances: &'a Float64Array,
}

impl<'a> Previous<'a> {
    fn new(rows: &'a RecordBatch) -> Result<Self, OperatorError> {
        let belief_means = column(rows, "belief_mean")?;
        let belief_variances = column(rows, "belief_variance")?;
        Ok(Self { rows, scores: column(rows, "score")?, belief_means, belief_variances })
    }

    fn score(&self, row: usize) -> Option<f64> {
        self.scores.is_valid(row).then(|| self.scores.value(row))
    }

    fn belief(&self, row: usize) -> Option<Belief> {
        let is_valid = self.belief_means.is_valid(row) && self.belief_variances.is_valid(row);
        is_valid.then(|| Belief { mean: self.belief_means.value(row), variance: self.belief_variances.value(row) })
    }
}

impl<'a> SortedTables<'a> {
    /// The columns of the batches of [`sorted_tables`].
    pub(super) fn new(tables: &'a [RecordBatch]) -> Result<Self, OperatorError> {
        let (prompts, pool, previous) = match tables {
            [prompts, pool] => (prompts, pool, None),
            [prompts, pool, previous] => (prompts, pool, Some(Previous::new(previous)?)),
            other => return Err(OperatorError::internal(PLACE, format!("expected two or three tables, found {}", other.len()))),
        };
        let has_groups = prompts.schema_ref().field_with_name("of_group").is_ok();
        Ok(Self {
            prompt_ids: column(prompts, "prompt_id")?,
            group_names: if has_groups { Some(column(prompts, "of_group")?) } else { None },
            pool,
            rewards: column(pool, "reward")?,
            token_counts: column(pool, "token_count")?,
            sampled_iterations: column(pool, "sampled_iteration")?,
            previous,
        })
    }

    /// Calls `visit` with the rows of each prompt, in ascending order of prompt_id.
    pub(super) fn for_each_prompt(&self, settings: &Select, mut visit: impl FnMut(&PromptRewards)) -> Result<(), OperatorError> {
        let mut pool_rows = PromptRows::new(self.pool)?;
        let mut previous_rows = self.previous.as_ref().map(|previous| PromptRows::new(previous.rows)).transpose()?;
        for row in 0..self.prompt_ids.len() {
            let id = self.prompt_ids.value(row);
            let responses = pool_rows.rows_of(id);
            let rewards = &self.rewards.values()[responses.clone()];
            let token_counts = &self.token_counts.values()[responses.clone()];
            let score = if rewards.is_empty() { None } else { Some(statistic(rewards, settings.rank_by)) };
            let sampled_iterations = &self.sampled_iterations.values()[responses];
            // At most one row: prompt_id is the key of a selection.
            let previous_row = previous_rows.as_mut().and_then(|rows| rows.rows_of(id).next());
            let previous = self.previous.as_ref().zip(previous_row);
            visit(&PromptRewards {
                id,
                group: self.group(row),
                rewards,
                token_counts,
                score,
                sampled_iterations,
                previous_score: previous.and_then(|(previous, row)| previous.score(row)),
                previous_belief: previous.and_then(|(previous, row)| previous.belief(row)),
            });
        }
        Ok(())
    }

    /// The group of a prompt; `None` for a prompt without a group.
    fn group(&self, row: usize) -> Option<&'a str> {
        let names = self.group_names?;
        names.is_valid(row).then(|| names.value(row))
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
