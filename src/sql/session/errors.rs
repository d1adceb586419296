//! The SQL engine's errors as errors of the store: without its internals, with advice for common
//! mistakes.
//!
//! Knows nothing of sessions.

use datafusion::error::DataFusionError;

use crate::did_you_mean::nearest;
use crate::store::StoreError;

/// The engine's words before the kind of an unsupported statement.
pub(super) const NOT_SUPPORTED: &str = "Statement not supported: ";

/// The engine's message without its chain of contexts and its prefix for the kind of error.
pub(super) fn sql(error: DataFusionError) -> StoreError {
    from_engine(&error)
}

/// The error of a query: about its memory, or the engine's message with the position in the query,
/// and with the name of a similar table for an unknown one.
pub(super) fn explain(error: &DataFusionError, limit: Option<usize>, tables: &[String]) -> StoreError {
    if let (DataFusionError::ResourcesExhausted(_), Some(limit)) = (error.find_root(), limit) {
        return StoreError::Sql { message: too_large("a query", limit) };
    }
    let mut message = match from_engine(error) {
        StoreError::Sql { message } => message,
        other => return other,
    };
    let table = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    if let Some(near) = table.and_then(|table| nearest(table, tables.iter().map(String::as_str))) {
        message.push_str(&format!("; did you mean \"{near}\"?"));
    }
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        message.push_str(&format!(" at Line: {}, Column: {}", span.start.line, span.start.column));
    }
    StoreError::Sql { message }
}

/// The message for a query or result above its memory limit in bytes.
pub(super) fn too_large(noun: &str, limit: usize) -> String {
    let advice = "filter rows or choose columns before they are joined, sorted or grouped, or add a LIMIT";
    format!("expected {noun} to take at most {limit} bytes of memory, found more; {advice}")
}

fn from_engine(error: &DataFusionError) -> StoreError {
    let message = match error.find_root() {
        DataFusionError::SQL(error, _) => error.to_string(),
        other => other.message().into_owned(),
    };
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    if let DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) = error.find_root() {
        return StoreError::Unreadable { message: message.trim().to_string() };
    }
    // All tables are in one schema; its name would only confuse.
    let message = message.trim().replace("'datafusion.public.", "'");
    StoreError::Sql { message: refusal(&message).unwrap_or(message) }
}

/// The advice for a statement other than a query, or for a file name in a query. `None` for another
/// error.
fn refusal(message: &str) -> Option<String> {
    const WRITE: &str = "to write rows to a file, use `optune sql RUN QUERY --format parquet --output FILE`";
    const READ: &str = "to read a file, make it an input table of the pipeline, or name it by `optune sql RUN --table NAME=FILE`";
    let not_a_query = ["DDL not supported: ", "DML not supported: ", NOT_SUPPORTED];
    if let Some(found) = not_a_query.iter().find_map(|words| message.strip_prefix(words)) {
        return Some(format!("expected a query, found {found}: queries change nothing, inside the run or outside; {WRITE}; {READ}"));
    }
    if message.contains("only supports a single SQL statement") {
        return Some("expected one query, found several statements; ask them one after the other".to_string());
    }
    let no_table = message.starts_with("table '") && (message.contains('/') || has_extension(message));
    let names_a_file = message.ends_with("not found") && (no_table || message.starts_with("table function"));
    names_a_file.then(|| format!("{message}; queries read no files by their names: {READ}"))
}

/// Whether a message is about a name with the extension of a table's file.
fn has_extension(message: &str) -> bool {
    ["parquet", "csv", "json", "jsonl", "arrow"].iter().any(|extension| message.contains(&format!(".{extension}'")))
}
