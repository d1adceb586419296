//! pair: the best response of each prompt, a worse one, and the weight of the pair, from the
//! `pool`.
//!
//! `rejection` chooses the worse response and `weight` computes the weight. `merge_join` makes the
//! pairs in one pass over the sorted pool; `reference_sql` is the equivalent SQL. Knows rewards
//! within a prompt. The `reference` operator fills in the logprobs of the reference model later.

mod merge_join;
mod reference_sql;
mod rejection;
mod weight;

pub use merge_join::{Rows, rows};
pub use reference_sql::sql;

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::pair::Pair;
use crate::sql::PromptGroups;
use crate::tables::TableKind;

/// Makes one pair for each prompt with different rewards. The other prompts are counted as ties.
pub(super) fn run(context: &Context, settings: &Pair) -> Result<Summary, OperatorError> {
    let session = context.spilling_session()?;
    context.register(&session, "pool", Slot::Pool)?;
    let mut prompts = 0;
    let pairs = context.write_relation(TableKind::Pairs, |relation| {
        let mut rows = rows(&session, settings, context.seed(), PromptGroups::default)?;
        rows.try_for_each(|batch| relation.write(&batch?))?;
        prompts = rows.prompts();
        Ok([("prompts", prompts), ("pairs", relation.rows()), ("ties", prompts - relation.rows())])
    })?;
    Ok(Summary::new(format!("{pairs} pairs, {} prompts without a difference in reward", prompts - pairs)))
}
