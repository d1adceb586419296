//! merge: the pool of this iteration, from new rewards, new responses and the last iteration's pool.
//!
//! [`sql`] says what it is. It is made by a walk through the tables, which have their rows in the order of their prompts. Knows which
//! prompts have new rewards; not how they were selected.

use arrow::array::{Array, Float64Array, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{interleave, take};

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::relational::Merge;
use crate::sql::{PromptGroups, Session};
use crate::tables::{TableError, TableKind, column, pool, responses, rewards};

/// New responses of the prompts that have any, and the carried ones of all others; `sampled_iteration` says when each was sampled.
pub(super) fn run(context: &Context, settings: &Merge) -> Result<Summary, OperatorError> {
    let session = context.spilling_session()?;
    context.register(&session, "rewards", Slot::Fresh)?;
    context.register(&session, "responses", Slot::Responses)?;
    let carried = context.has(Slot::Carried);
    if carried {
        context.register(&session, "carried", Slot::Carried)?;
    }
    let rows = context.write_relation(TableKind::Pool, |relation| {
        rows(&session, carried, settings.keep_best, PromptGroups::default())?.try_for_each(|batch| relation.write(&batch?))?;
        Ok([("responses", relation.rows())])
    })?;
    Ok(Summary::new(format!("{rows} responses in the pool")))
}

const COLUMNS: &str = "prompt_id, response_index, sampled_iteration, reward, token_count, finish_reason";

/// Of responses' tokens only the count, so that no more than that is in memory.
const TOKEN_COUNT: &str = "CAST(array_length(responses.token_ids) AS INT) - responses.prompt_token_count AS token_count";

/// The plan as SQL over `rewards`, `responses` and, after the first iteration, `carried`.
///
/// A selected prompt whose new responses all failed keeps its old ones, so that no prompt is lost. One with new ones keeps the best of the old
/// ones too if `keep_best` says so; of equal ones the first by response_index, then sampled_iteration.
pub fn sql(carried: bool, keep_best: bool) -> String {
    let is_fresh = "EXISTS (SELECT 1 FROM fresh WHERE fresh.prompt_id = carried.prompt_id)";
    let mut kept = if carried { format!("\nUNION ALL\nSELECT {COLUMNS} FROM carried\nWHERE NOT {is_fresh}") } else { String::new() };
    if carried && keep_best {
        kept += &format!(
            "\nUNION ALL\nSELECT {COLUMNS} FROM (
  SELECT *, row_number() OVER (PARTITION BY prompt_id ORDER BY reward DESC, response_index, sampled_iteration) AS place FROM carried
) AS carried\nWHERE place = 1 AND {is_fresh}"
        );
    }
    format!(
        "WITH fresh AS (
  SELECT rewards.prompt_id, rewards.response_index, rewards.sampled_iteration, rewards.reward,
         {TOKEN_COUNT}, responses.finish_reason
  FROM rewards JOIN responses
    ON rewards.prompt_id = responses.prompt_id AND rewards.sampled_iteration = responses.sampled_iteration AND rewards.response_index = responses.response_index
  WHERE rewards.error IS NULL AND responses.error IS NULL
), merged AS (
SELECT {COLUMNS} FROM fresh{kept}
)
SELECT {COLUMNS} FROM merged
ORDER BY prompt_id, response_index, sampled_iteration"
    )
}

/// What [`sql`] says of the tables `rewards`, `responses` and, if there is one, `carried` of a session, whose rows are in the order of
/// their keys: batch by batch.
///
/// # Errors
/// A table is missing. A row that is not in its place is an error in the place of a batch.
pub fn rows<'s>(
    session: &'s Session,
    carried: bool,
    keep_best: bool,
    slices: PromptGroups<'s>,
) -> Result<impl Iterator<Item = Result<RecordBatch, OperatorError>> + use<'s>, OperatorError> {
    let scored = session.rows("SELECT prompt_id, sampled_iteration, response_index, reward FROM rewards WHERE error IS NULL")?;
    let answered =
        format!("SELECT prompt_id, sampled_iteration, response_index, {TOKEN_COUNT}, finish_reason FROM responses WHERE error IS NULL");
    let mut slices = slices.with("rewards", rewards::KEY, scored);
    slices = slices.with("responses", responses::KEY, session.rows(&answered)?);
    if carried {
        slices = slices.with("carried", pool::KEY, session.rows(&format!("SELECT {COLUMNS} FROM carried"))?);
    }
    Ok(slices.map(move |slice| match slice?.as_slice() {
        [rewards, answered] => joined(rewards, answered),
        [rewards, answered, carried] => merged(&joined(rewards, answered)?, carried, keep_best),
        other => Err(OperatorError::Input(format!("expected two tables or three, found {}", other.len()))),
    }))
}

/// The new responses that have rewards, in the order of the pool.
fn joined(rewards: &RecordBatch, answered: &RecordBatch) -> Result<RecordBatch, OperatorError> {
    let (ours, theirs) = (Keys::of(rewards)?, Keys::of(answered)?);
    let (mut rows, mut row, mut other) = (Vec::with_capacity(rewards.num_rows()), 0, 0);
    while row < rewards.num_rows() && other < answered.num_rows() {
        let order = ours.at(row).cmp(&theirs.at(other));
        if order.is_eq() {
            rows.push((row as u32, other as u32));
        }
        row += usize::from(order.is_le());
        other += usize::from(order.is_ge());
    }
    // The rows are in the order of `sampled_iteration` within a prompt.
    let place = |row: u32| (ours.ids.value(row as usize), ours.indices.value(row as usize));
    rows.sort_by(|(one, _), (other, _)| place(*one).cmp(&place(*other)));
    let rewarded: UInt32Array = rows.iter().map(|(row, _)| *row).collect();
    let sampled: UInt32Array = rows.iter().map(|(_, row)| *row).collect();
    let columns = COLUMNS.split(", ").map(|name| match rewards.column_by_name(name) {
        Some(column) => take(column, &rewarded, None),
        None => take(answered.column(answered.schema().index_of(name)?), &sampled, None),
    });
    Ok(RecordBatch::try_new(pool::schema(), columns.collect::<Result<_, _>>()?)?)
}

/// The fresh rows, and the carried ones of all prompts that have none; of the others the best one, if that is kept.
fn merged(fresh: &RecordBatch, carried: &RecordBatch, keep_best: bool) -> Result<RecordBatch, OperatorError> {
    let (new, old): (&StringArray, &StringArray) = (column(fresh, "prompt_id")?, column(carried, "prompt_id")?);
    let rewards: &Float64Array = column(carried, "reward")?;
    let (new_keys, old_keys) = (Keys::of(fresh)?, Keys::of(carried)?);
    // Each row as where it comes from, fresh or carried, and its row there.
    let (mut places, mut kept, mut row) = (Vec::with_capacity(new.len() + old.len()), 0, 0);
    while row < new.len() {
        let id = new.value(row);
        while kept < old.len() && old.value(kept) < id {
            places.push((1, kept));
            kept += 1;
        }
        let mut best: Option<usize> = None;
        while kept < old.len() && old.value(kept) == id {
            if best.is_none_or(|best| rewards.value(kept).total_cmp(&rewards.value(best)).is_gt()) {
                best = Some(kept);
            }
            kept += 1;
        }
        best = best.filter(|_| keep_best);
        while row < new.len() && new.value(row) == id {
            if let Some(old) = best.take_if(|old| old_keys.in_pool(*old) < new_keys.in_pool(row)) {
                places.push((1, old));
            }
            places.push((0, row));
            row += 1;
        }
        places.extend(best.map(|old| (1, old)));
    }
    places.extend((kept..old.len()).map(|row| (1, row)));
    let columns = fresh.columns().iter().zip(carried.columns()).map(|(new, old)| interleave(&[new, old], &places));
    Ok(RecordBatch::try_new(pool::schema(), columns.collect::<Result<_, _>>()?)?)
}

/// The key of rewards, of responses and, in another order, of a pool.
struct Keys<'a> {
    ids: &'a StringArray,
    sampled_iteration: &'a Int32Array,
    indices: &'a Int32Array,
}

impl<'a> Keys<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, TableError> {
        Ok(Self {
            ids: column(batch, "prompt_id")?,
            sampled_iteration: column(batch, "sampled_iteration")?,
            indices: column(batch, "response_index")?,
        })
    }

    fn at(&self, row: usize) -> (&'a str, i32, i32) {
        (self.ids.value(row), self.sampled_iteration.value(row), self.indices.value(row))
    }

    /// The place of a row of a pool among those of its prompt.
    fn in_pool(&self, row: usize) -> (i32, i32) {
        (self.indices.value(row), self.sampled_iteration.value(row))
    }
}
