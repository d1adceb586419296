//! The dataset formats of prompts, demonstrations and preferences, and how each becomes our own
//! columns.
//!
//! ```text
//! batch ─▶ rename (map) ─▶ with_conversations ─▶ detect (by the columns) ─▶ normalize ─▶ alike
//!          prompt | messages, response, chosen, rejected, chosen_score, rejected_score, others
//! ```
//! Knows columns and messages. Knows no file, and nothing of the use of the rows.

mod columns;
mod detect;
mod messages;
mod rename;
mod row;
mod row_builder;
mod source_columns;
mod text_rows;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

use self::rename::batch_of;
use self::row_builder::RowBuilder;
use self::source_columns::SourceColumns;
use crate::pipeline::spec::input::DatasetFormat;

pub(super) use self::detect::detect;
pub(super) use self::messages::{alike, message_columns, with_conversations};
pub(super) use self::rename::rename;
pub(crate) use self::text_rows::IS_TEXT;
pub(super) use self::text_rows::text_rows;

/// A batch in our own columns.
pub(super) struct Normalized {
    /// The rows of the dataset format.
    pub(super) batch: RecordBatch,
    /// The other rows: their indices in the source batch, each with its problem.
    pub(super) malformed: Vec<(usize, String)>,
}

/// The batch's rows with our own columns first, followed by the columns that the dataset format
/// does not use.
///
/// # Errors
/// The columns are not of the dataset format, or the result would have a column twice.
pub(super) fn normalize(dataset_format: DatasetFormat, batch: &RecordBatch) -> Result<Normalized, String> {
    if matches!(dataset_format, DatasetFormat::Rows | DatasetFormat::Auto) {
        return Ok(Normalized { batch: batch.clone(), malformed: Vec::new() });
    }
    let sources = SourceColumns::new(dataset_format, batch)?;
    let mut builder = RowBuilder::default();
    let mut malformed = Vec::new();
    for index in 0..batch.num_rows() {
        if let Err(problem) = sources.row(index).and_then(|row| builder.add(row, sources.is_conversation)) {
            malformed.push((index, problem));
        }
    }
    let mut columns = builder.finish(&sources);
    let rest = without_rows(batch, malformed.iter().map(|(row, _)| *row)).map_err(|error| error.to_string())?;
    for (field, array) in rest.schema().fields().iter().zip(rest.columns()) {
        if sources.used.contains(field.name()) {
            continue;
        }
        if columns.iter().any(|(name, _)| name == field.name()) {
            let problem = format!(
                "dataset_format {}: the table has a column {} that its rows would get; rename it with `map:`",
                dataset_format.name(),
                field.name()
            );
            return Err(problem);
        }
        columns.push((field.name().clone(), array.clone()));
    }
    Ok(Normalized { batch: batch_of(columns)?, malformed })
}

/// The batch without these rows.
pub(in crate::import) fn without_rows(batch: &RecordBatch, rows: impl IntoIterator<Item = usize>) -> Result<RecordBatch, ArrowError> {
    let mut kept = vec![true; batch.num_rows()];
    let mut complete = true;
    for row in rows {
        if let Some(kept) = kept.get_mut(row) {
            (*kept, complete) = (false, false);
        }
    }
    if complete { Ok(batch.clone()) } else { filter_record_batch(batch, &BooleanArray::from(kept)) }
}
