//! merge: the pool of this iteration. A plan over new rewards, new responses and the last iteration's pool.
//!
//! Knows which prompts have new rewards; not how they were selected.

use super::{Context, StageError, Summary};
use crate::tables::TableKind;

/// New responses of the prompts that have any, and the carried ones of all others; `born` says when each was sampled.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let session = context.session()?;
    context.register(&session, "rewards", "fresh")?;
    context.register(&session, "responses", "responses")?;
    let carried = context.has("carried");
    if carried {
        context.register(&session, "carried", "carried")?;
    }
    let pool = session.query(&sql(carried))?;
    let rows: usize = pool.iter().map(|batch| batch.num_rows()).sum();
    context.write_relation(TableKind::Pool, &pool, [("responses", rows as i64)])?;
    Ok(Summary::new(format!("{rows} responses in the pool")))
}

/// The plan as SQL over `rewards`, `responses` and, after the first iteration, `carried`.
///
/// A selected prompt whose new responses all failed keeps its old ones, so that no prompt is lost.
pub fn sql(carried: bool) -> String {
    let columns = "prompt_id, response_index, born, reward, token_count, finish_reason";
    let kept = if carried {
        format!(
            "\nUNION ALL\nSELECT {columns} FROM carried\nWHERE NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.prompt_id = carried.prompt_id)"
        )
    } else {
        String::new()
    };
    format!(
        "WITH fresh AS (
  SELECT rewards.prompt_id, rewards.response_index, rewards.born, rewards.reward,
         CAST(array_length(responses.token_ids) AS INT) - responses.prompt_token_count AS token_count, responses.finish_reason
  FROM rewards JOIN responses
    ON rewards.prompt_id = responses.prompt_id AND rewards.born = responses.born AND rewards.response_index = responses.response_index
  WHERE rewards.error IS NULL AND responses.error IS NULL
), merged AS (
SELECT {columns} FROM fresh{kept}
)
SELECT {columns} FROM merged
ORDER BY prompt_id, response_index"
    )
}
