//! Equivalent SQL of the merged pool, for `optune plan --sql`.
//!
//! The merge join in `mod.rs` computes the same rows; tests compare both.

use super::{COLUMNS, TOKEN_COUNT};

/// The pool as SQL over `rewards`, `responses` and, after the first iteration, the last pool,
/// `carried`.
///
/// A selected prompt keeps its old responses if all new ones failed, so no prompt is lost. With
/// `keep_best`, a prompt with new responses also keeps the best old one. Of equal ones, this is the
/// first by response_index, then sampled_iteration.
pub fn sql(carried: bool, keep_best: bool) -> String {
    let is_fresh = "EXISTS (SELECT 1 FROM fresh WHERE fresh.prompt_id = carried.prompt_id)";
    let mut old_rows = String::new();
    if carried {
        old_rows += &format!("\nUNION ALL\nSELECT {COLUMNS} FROM carried\nWHERE NOT {is_fresh}");
    }
    if carried && keep_best {
        old_rows += &format!(
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
SELECT {COLUMNS} FROM fresh{old_rows}
)
SELECT {COLUMNS} FROM merged
ORDER BY prompt_id, response_index, sampled_iteration"
    )
}
