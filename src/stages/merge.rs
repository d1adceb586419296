//! merge: the pool of this iteration. A plan over new rewards, new responses and the last iteration's pool.
//!
//! Knows which prompts have new rewards; not how they were selected.

use super::{Context, StageError, Summary};
use crate::store::Slices;
use crate::tables::TableKind;

/// New responses of the prompts that have any, and the carried ones of all others; `born` says when each was sampled.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let session = context.spilling_session()?;
    context.register(&session, "rewards", "fresh")?;
    context.register(&session, "responses", "responses")?;
    let carried = context.has("carried");
    let mut slices = Slices::default();
    slices.add("rewards", session.rows("SELECT prompt_id, born, response_index, reward, error FROM rewards")?);
    slices.add("answered", session.rows(ANSWERED)?);
    if carried {
        context.register(&session, "carried", "carried")?;
        slices.add("carried", session.rows(&format!("SELECT {COLUMNS} FROM carried"))?);
    }
    let rows = context.write_relation(TableKind::Pool, |relation| {
        slices.query(&format!("WITH {}", of_each_prompt(carried)), &mut |batch| relation.write(&batch))?;
        Ok([("responses", relation.rows())])
    })?;
    Ok(Summary::new(format!("{rows} responses in the pool")))
}

const COLUMNS: &str = "prompt_id, response_index, born, reward, token_count, finish_reason";

/// What the pool keeps of responses: of their tokens the count, so that no more than that is in memory.
const ANSWERED: &str = "SELECT prompt_id, born, response_index,
         CAST(array_length(token_ids) AS INT) - prompt_token_count AS token_count, finish_reason
  FROM responses WHERE error IS NULL";

/// The plan as SQL over `rewards`, `responses` and, after the first iteration, `carried`.
///
/// A selected prompt whose new responses all failed keeps its old ones, so that no prompt is lost.
pub fn sql(carried: bool) -> String {
    format!("WITH answered AS (\n  {ANSWERED}\n), {}", of_each_prompt(carried))
}

/// What becomes of each prompt for itself, behind `WITH`.
fn of_each_prompt(carried: bool) -> String {
    let kept = if carried {
        format!(
            "\nUNION ALL\nSELECT {COLUMNS} FROM carried\nWHERE NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.prompt_id = carried.prompt_id)"
        )
    } else {
        String::new()
    };
    format!(
        "fresh AS (
  SELECT rewards.prompt_id, rewards.response_index, rewards.born, rewards.reward, answered.token_count, answered.finish_reason
  FROM rewards JOIN answered
    ON rewards.prompt_id = answered.prompt_id AND rewards.born = answered.born AND rewards.response_index = answered.response_index
  WHERE rewards.error IS NULL
), merged AS (
SELECT {COLUMNS} FROM fresh{kept}
)
SELECT {COLUMNS} FROM merged
ORDER BY prompt_id, response_index"
    )
}
