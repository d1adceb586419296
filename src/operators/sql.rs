//! sql: a table of the user's own, from one query over other tables.
//!
//! Knows neither the query nor its columns.

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::sql::Sql;

/// Writes the rows of the query as one part.
pub(super) fn run(context: &Context, settings: &Sql) -> Result<Summary, OperatorError> {
    let session = context.query_session()?;
    context.register_named(&session, Slot::Tables)?;
    let rows = context.write_query_result(&session, &settings.query.text)?;
    Ok(Summary::new(format!("{rows} rows")))
}
