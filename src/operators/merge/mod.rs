//! merge: the pool of this iteration, from new rewards, new responses and the last iteration's
//! pool.
//!
//! It is a merge join of sorted tables; `reference_sql` is the equivalent SQL. Knows the prompts
//! with new rewards, not the reason for their selection.

mod reference_sql;

pub use reference_sql::sql;

use arrow::array::{Float64Array, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{interleave, take};

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::merge::Merge;
use crate::sql::{PromptGroups, PromptRows, Session};
use crate::tables::{TableError, TableKind, column, pool, responses, rewards};

/// Name of this module in internal errors.
const PLACE: &str = "operators::merge";

/// Takes the new responses of all prompts with new responses, and the old responses of all other
/// prompts. `sampled_iteration` has the iteration of each response.
pub(super) fn run(context: &Context, settings: &Merge) -> Result<Summary, OperatorError> {
    let session = context.spilling_session()?;
    context.register(&session, "rewards", Slot::Fresh)?;
    context.register(&session, "responses", Slot::Responses)?;
    let carried = context.has(Slot::Carried);
    if carried {
        context.register(&session, "carried", Slot::Carried)?;
    }
    let is_sorted = settings.fresh.0.len() == 1;
    let rows = context.write_relation(TableKind::Pool, |relation| {
        let order = if is_sorted { FreshOrder::Sorted } else { FreshOrder::Tables };
        rows(&session, carried, settings.keep_best, order, PromptGroups::default())?.try_for_each(|batch| relation.write(&batch?))?;
        Ok([("responses", relation.rows())])
    })?;
    Ok(Summary::new(format!("{rows} responses in the pool")))
}

/// The columns of a pool.
const COLUMNS: &str = "prompt_id, response_index, sampled_iteration, reward, token_count, finish_reason";

/// The number of tokens of a response. The token ids themselves do not stay in memory.
const TOKEN_COUNT: &str = "CAST(array_length(responses.token_ids) AS INT) - responses.prompt_token_count AS token_count";

/// The order of the tables `rewards` and `responses` of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshOrder {
    /// Sorted by their keys, as one table of a run is.
    Sorted,
    /// Several tables one after the other: a sort comes first.
    Tables,
}

/// The pool from the tables `rewards`, `responses` and, if there is one, `carried` of a session,
/// batch by batch: the rows of [`sql`]. `carried` must be sorted by its key.
///
/// # Errors
/// A table is missing. A row out of order is an error instead of a batch.
pub fn rows<'s>(
    session: &'s Session,
    carried: bool,
    keep_best: bool,
    order: FreshOrder,
    prompt_groups: PromptGroups<'s>,
) -> Result<impl Iterator<Item = Result<RecordBatch, OperatorError>> + use<'s>, OperatorError> {
    let sort = match order {
        FreshOrder::Sorted => "",
        FreshOrder::Tables => " ORDER BY prompt_id, sampled_iteration, response_index",
    };
    let key = "prompt_id, sampled_iteration, response_index";
    let rewards = format!("SELECT {key}, reward FROM rewards WHERE error IS NULL{sort}");
    let responses = format!("SELECT {key}, {TOKEN_COUNT}, finish_reason FROM responses WHERE error IS NULL{sort}");
    let mut tables = prompt_groups.with_table("rewards", rewards::KEY, session.rows(&rewards)?);
    tables = tables.with_table("responses", responses::KEY, session.rows(&responses)?);
    if carried {
        tables = tables.with_table("carried", pool::KEY, session.rows(&format!("SELECT {COLUMNS} FROM carried"))?);
    }
    Ok(tables.map(move |group| match group?.as_slice() {
        [rewards, responses] => join_by_key(rewards, responses),
        [rewards, responses, carried] => merge_pools(&join_by_key(rewards, responses)?, carried, keep_best),
        other => Err(OperatorError::internal(PLACE, format!("expected two or three tables, found {}", other.len()))),
    }))
}

/// The new responses with a reward, in the order of the pool.
fn join_by_key(rewards: &RecordBatch, responses: &RecordBatch) -> Result<RecordBatch, OperatorError> {
    let reward_keys = Keys::new(rewards)?;
    let response_keys = Keys::new(responses)?;
    let mut matches = Vec::with_capacity(rewards.num_rows());
    let mut reward_row = 0;
    let mut response_row = 0;
    while reward_row < rewards.num_rows() && response_row < responses.num_rows() {
        let order = reward_keys.sampling_order(reward_row).cmp(&response_keys.sampling_order(response_row));
        if order.is_eq() {
            matches.push((reward_row as u32, response_row as u32));
        }
        reward_row += usize::from(order.is_le());
        response_row += usize::from(order.is_ge());
    }
    // Within a prompt, rows are still in the order of `sampled_iteration`.
    let pool_order = |row: u32| (reward_keys.ids.value(row as usize), reward_keys.indices.value(row as usize));
    matches.sort_by(|(row, _), (other, _)| pool_order(*row).cmp(&pool_order(*other)));
    let reward_rows: UInt32Array = matches.iter().map(|(row, _)| *row).collect();
    let response_rows: UInt32Array = matches.iter().map(|(_, row)| *row).collect();
    let columns = COLUMNS.split(", ").map(|name| match rewards.column_by_name(name) {
        Some(column) => take(column, &reward_rows, None),
        None => take(responses.column(responses.schema().index_of(name)?), &response_rows, None),
    });
    Ok(RecordBatch::try_new(pool::schema(), columns.collect::<Result<_, _>>()?)?)
}

/// Numbers of the tables in `interleave`.
const FRESH: usize = 0;
const CARRIED: usize = 1;

/// The fresh rows, and the carried rows of all prompts without fresh rows. With `keep_best`,
/// prompts with fresh rows also keep their best carried row.
fn merge_pools(fresh: &RecordBatch, carried: &RecordBatch, keep_best: bool) -> Result<RecordBatch, OperatorError> {
    let fresh_keys = Keys::new(fresh)?;
    let carried_keys = Keys::new(carried)?;
    let carried_rewards: &Float64Array = column(carried, "reward")?;
    let mut carried_prompts = PromptRows::new(carried)?;
    // The table and the row of each row of the result.
    let mut merged = Vec::with_capacity(fresh.num_rows() + carried.num_rows());
    let mut next_carried = 0;
    for (prompt_id, fresh_rows) in PromptRows::new(fresh)?.iter() {
        let replaced = carried_prompts.rows_of(prompt_id);
        merged.extend((next_carried..replaced.start).map(|row| (CARRIED, row)));
        next_carried = replaced.end;
        let mut best = if keep_best {
            // The first of equal rewards.
            let is_better = |row, best| carried_rewards.value(row).total_cmp(&carried_rewards.value(best)).is_gt();
            replaced.reduce(|best, row| if is_better(row, best) { row } else { best })
        } else {
            None
        };
        for row in fresh_rows {
            // The best carried row goes to its position in the order of the pool.
            if let Some(best) = best.take_if(|best| carried_keys.pool_order(*best) < fresh_keys.pool_order(row)) {
                merged.push((CARRIED, best));
            }
            merged.push((FRESH, row));
        }
        merged.extend(best.map(|best| (CARRIED, best)));
    }
    merged.extend((next_carried..carried.num_rows()).map(|row| (CARRIED, row)));
    let columns = fresh.columns().iter().zip(carried.columns()).map(|(fresh, carried)| interleave(&[fresh, carried], &merged));
    Ok(RecordBatch::try_new(pool::schema(), columns.collect::<Result<_, _>>()?)?)
}

/// The key columns of rewards, of responses and, in another order, of a pool.
struct Keys<'a> {
    ids: &'a StringArray,
    sampled_iterations: &'a Int32Array,
    indices: &'a Int32Array,
}

impl<'a> Keys<'a> {
    fn new(batch: &'a RecordBatch) -> Result<Self, TableError> {
        Ok(Self {
            ids: column(batch, "prompt_id")?,
            sampled_iterations: column(batch, "sampled_iteration")?,
            indices: column(batch, "response_index")?,
        })
    }

    /// The sort key of rewards and responses.
    fn sampling_order(&self, row: usize) -> (&'a str, i32, i32) {
        (self.ids.value(row), self.sampled_iterations.value(row), self.indices.value(row))
    }

    /// The sort key of a pool, within a prompt.
    fn pool_order(&self, row: usize) -> (i32, i32) {
        (self.indices.value(row), self.sampled_iterations.value(row))
    }
}
