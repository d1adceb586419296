//! pair: the best response of each prompt, a worse one, and the weight of the pair, from the
//! `pool`.
//!
//! `truncation` says what counts of responses cut off by the length limit, `rejection` chooses the
//! worse response and `weight` computes the weight. `merge_join` makes the
//! pairs in one pass over the sorted pool; `reference_sql` is the equivalent SQL. Knows rewards
//! within a prompt. The `reference` operator fills in the logprobs of the reference model later.

mod merge_join;
mod reference_sql;
mod rejection;
mod truncation;
mod weight;

pub use merge_join::{Rows, rows};
pub use reference_sql::sql;

use arrow::array::Int64Array;

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::pair::{Pair, Penalize, Truncated};
use crate::sql::{PromptGroups, Session};
use crate::tables::{TableError, TableKind, column};

/// Makes one pair for each prompt with different rewards. The other prompts are counted as ties.
pub(super) fn run(context: &Context, settings: &Pair) -> Result<Summary, OperatorError> {
    let session = context.spilling_session()?;
    context.register(&session, "pool", Slot::Pool)?;
    let truncated = if settings.truncated == Truncated::Keep { 0 } else { truncated(&session)? };
    let mut prompts = 0;
    let pairs = context.write_relation(TableKind::Pairs, |relation| {
        let mut rows = rows(&session, settings, context.seed(), PromptGroups::default)?;
        rows.try_for_each(|batch| relation.write(&batch?))?;
        prompts = rows.prompts();
        Ok([("prompts", prompts), ("pairs", relation.rows()), ("ties", prompts - relation.rows())])
    })?;
    let truncated = match settings.truncated {
        Truncated::Keep => String::new(),
        Truncated::Penalize(Penalize { by }) => format!(", {truncated} truncated responses with rewards lower by {by}"),
        Truncated::Drop => format!(", without {truncated} truncated responses"),
    };
    Ok(Summary::new(format!("{pairs} pairs, {} prompts without a difference in reward{truncated}", prompts - pairs)))
}

/// The number of truncated responses in the pool.
fn truncated(session: &Session) -> Result<i64, OperatorError> {
    let counts = session.query(truncation::COUNT)?.into_iter().map(|batch| {
        let counts: &Int64Array = column(&batch, "truncated")?;
        Ok(counts.iter().flatten().sum::<i64>())
    });
    Ok(counts.sum::<Result<i64, TableError>>()?)
}
