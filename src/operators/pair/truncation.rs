//! Responses cut off by the length limit: the pool as pairs are made of it.
//!
//! | truncated | rewards |
//! |---|---|
//! | keep | as they are |
//! | penalize | r − by for a truncated response |
//! | drop | none for a truncated response: it is in no pair |
//!
//! TRL's `missing_eos_penalty` is `penalize`, its `mask_truncated_completions` is `drop`. The pool
//! keeps the rewards as scored. `merge_join` and `reference_sql` read the same rows.

use crate::pipeline::spec::pair::{Pair, Penalize, Rejected, Truncated};

/// Truncated responses in the pool, as SQL.
pub(super) const COUNT: &str = "SELECT count(*) AS truncated FROM pool WHERE finish_reason = 'length'";

/// The rows of `pool` with their rewards for pairs, as SQL in the order of `pool`.
pub(super) fn pool_query(settings: &Pair, with_draw: bool) -> String {
    let draw = if with_draw && settings.rejected == Rejected::Random { ", draw" } else { "" };
    let (reward, rest) = match settings.truncated {
        Truncated::Keep => ("reward".to_string(), ""),
        Truncated::Penalize(Penalize { by }) => {
            (format!("CASE WHEN finish_reason = 'length' THEN reward - {by:?} ELSE reward END AS reward"), "")
        }
        Truncated::Drop => ("reward".to_string(), " WHERE finish_reason <> 'length'"),
    };
    format!("SELECT prompt_id, response_index, sampled_iteration, {reward}{draw} FROM pool{rest}")
}
