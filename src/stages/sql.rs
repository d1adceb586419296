//! sql: a table of the user's own, from one query over other tables.

use super::{Context, StageError, Summary};
use crate::pipeline::spec::relational::Sql;

/// The query's rows, as one part.
pub(super) fn run(context: &Context, settings: &Sql) -> Result<Summary, StageError> {
    let session = context.session()?;
    context.register_named(&session, "tables")?;
    let schema = session.schema_of(&settings.query.text)?;
    let rows = session.query(&settings.query.text)?;
    let count: usize = rows.iter().map(|batch| batch.num_rows()).sum();
    context.write_query_result(schema, &rows)?;
    Ok(Summary::new(format!("{count} rows")))
}
