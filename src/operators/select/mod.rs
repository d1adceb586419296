//! select: the prompts to sample new responses for, from `prompts` and the `pool` of the last
//! iteration.
//!
//! ```text
//! prompts, pool ─▶ sorted_tables ─▶ population ─▶ merge_join ─▶ selection
//!                                   (expected_gain,  (strategies, quota)
//!                                    posterior)
//! ```
//! `strategies` ranks prompts and says if they are eligible. Some compare a prompt with all others:
//! `population` knows these; `expected_gain` and `posterior` learn from them. `merge_join` makes
//! the selection over sorted tables; `reference_sql` is the equivalent SQL. Knows rewards as
//! numbers to rank by, not the texts of prompts and responses.

mod expected_gain;
mod expected_gain_sql;
mod merge_join;
mod population;
mod posterior;
mod posterior_sql;
mod queries;
mod quota;
mod reference_sql;
mod seen_rewards;
mod sorted_tables;
mod strategies;

pub use merge_join::{SelectionParameters, rows};
pub use quota::Quota;
pub use reference_sql::sql;
pub use sorted_tables::POOL_QUERY;

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::select::Select;
use crate::sql::{PromptGroups, Session};
use crate::tables::TableKind;
use queries::EVERY_PROMPT;

/// This module in internal errors.
const PLACE: &str = "operators::select";

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657). Without a
/// pool, it selects all of them.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, OperatorError> {
    // Two sorts run at the same time. Each has its own memory limit, so neither can starve the
    // other.
    let session = context.spilling_session()?;
    let ranking = context.spilling_session()?;
    let prompts = register_prompts(context, &session)?;
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
const SORTED_POOL_QUERY: &str = "SELECT prompt_id, reward, sampled_iteration, token_count FROM pool ORDER BY prompt_id";

/// Registers `prompts`: all of them, or those of a selection. Returns their number.
fn register_prompts(context: &Context, session: &Session) -> Result<usize, OperatorError> {
    if !context.has(Slot::Within) {
        return context.register_prompts(session, "prompts", Slot::Prompts);
    }
    context.register_prompts(session, "all_prompts", Slot::Prompts)?;
    context.register(session, "within", Slot::Within)?;
    session.register_view("prompts", "SELECT * FROM all_prompts WHERE prompt_id IN (SELECT prompt_id FROM within WHERE selected)")?;
    let count = session.count("SELECT count(*) FROM prompts")?;
    usize::try_from(count).map_err(|_| OperatorError::internal(PLACE, format!("{count} prompts")))
}

/// Registers the view `pool` over the user's table `recorded`, with the columns of a pool needed
/// here. Rows without a reward are left out.
fn register_recorded(session: &Session) -> Result<(), OperatorError> {
    let schema = session.schema_of("SELECT * FROM recorded")?;
    let optional = |name: &str, default: i32| {
        let value = if schema.field_with_name(name).is_ok() { format!("coalesce({name}, {default})") } else { default.to_string() };
        format!("CAST({value} AS INT) AS {name}")
    };
    session.register_view(
        "pool",
        &format!(
            "SELECT CAST(prompt_id AS VARCHAR) AS prompt_id, CAST(reward AS DOUBLE) AS reward, {}, {}
             FROM recorded WHERE reward IS NOT NULL",
            optional("sampled_iteration", 0),
            optional("token_count", 1),
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
