//! select: the prompts to sample new responses for, from `prompts` and the `pool` of the last
//! iteration.
//!
//! `strategies` ranks prompts and says if they are eligible. `merge_join` makes the selection in
//! one pass over sorted tables; `reference_sql` is the equivalent SQL. Knows rewards as numbers to
//! rank by, not the texts of prompts and responses.

mod merge_join;
mod queries;
mod quota;
mod reference_sql;
mod strategies;

pub use merge_join::{POOL_QUERY, SelectionParameters, rows};
pub use quota::Quota;
pub use reference_sql::sql;

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::select::Select;
use crate::sql::{PromptGroups, Session};
use crate::tables::TableKind;
use queries::EVERY_PROMPT;

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657). Without a
/// pool, it selects all of them.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, OperatorError> {
    // Two sorts run at the same time. Each has its own memory limit, so neither can starve the
    // other.
    let session = context.spilling_session()?;
    let ranking = context.spilling_session()?;
    let prompts = context.register_prompts(&session, "prompts", Slot::Prompts)?;
    let has_pool = context.has(Slot::Pool);
    let is_own_pool = context.task.input(Slot::Pool).map_or(Ok(false), |pool| context.is_own_table(pool))?;
    if is_own_pool {
        context.register(&session, "recorded", Slot::Pool)?;
        register_recorded(&session)?;
    } else if has_pool {
        context.register(&session, "pool", Slot::Pool)?;
    }
    if context.has(Slot::Previous) {
        context.register(&session, "previous", Slot::Previous)?;
    }
    let stream = context.seed();
    let quota = Quota::new(settings, prompts, stream.iteration, has_pool);
    let mut selected = 0;
    context.write_relation(TableKind::Selection, |relation| {
        if has_pool {
            let pool_query = if is_own_pool { SORTED_POOL_QUERY } else { POOL_QUERY };
            let parameters = SelectionParameters { settings, quota, stream, pool_query };
            let mut rows = rows(&session, &ranking, parameters, PromptGroups::default)?;
            rows.try_for_each(|batch| relation.write(&batch?))?;
            selected = rows.selected();
        } else {
            session.rows(EVERY_PROMPT)?.try_for_each(|batch| relation.write(&batch?))?;
            selected = prompts;
        }
        Ok([("prompts", prompts as i64), ("selected", selected as i64)])
    })?;
    Ok(Summary::new(format!("{selected} of {prompts} prompts selected")))
}

/// The rows of a user's table of rewards, which may be in any order.
const SORTED_POOL_QUERY: &str = "SELECT prompt_id, reward, sampled_iteration FROM pool ORDER BY prompt_id";

/// Registers the view `pool` over the user's table `recorded`, with the columns of a pool needed
/// here. Rows without a reward are left out.
fn register_recorded(session: &Session) -> Result<(), OperatorError> {
    let has_iteration = session.schema_of("SELECT * FROM recorded")?.field_with_name("sampled_iteration").is_ok();
    let sampled_iteration = if has_iteration { "CAST(sampled_iteration AS INT)" } else { "CAST(0 AS INT)" };
    session.register_view(
        "pool",
        &format!(
            "SELECT CAST(prompt_id AS VARCHAR) AS prompt_id, CAST(reward AS DOUBLE) AS reward, {sampled_iteration} AS sampled_iteration
             FROM recorded WHERE reward IS NOT NULL"
        ),
    )?;
    let invalid = "prompt_id IS NULL OR isnan(reward) OR abs(reward) = CAST('Infinity' AS DOUBLE)";
    match session.count(&format!("SELECT count(*) FROM pool WHERE {invalid}"))? {
        0 => Ok(()),
        count => {
            Err(OperatorError::Input(format!("pool: expected a prompt_id and a finite reward in every row, found {count} rows without")))
        }
    }
}
