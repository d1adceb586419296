//! The dataset formats of prompts, demonstrations and preferences, and how each becomes our own
//! columns.
//!
//! ```text
//! batch ─▶ rename (map) ─▶ detect (by the columns) ─▶ normalize
//!          prompt | messages, response, chosen, rejected, chosen_score, rejected_score, others
//! ```
//! Knows columns and messages. Knows no file, and nothing of the use of the rows.

mod columns;
mod detect;
mod rename;
mod row;
mod row_builder;
mod source_columns;

use arrow::array::RecordBatch;

use self::rename::batch_of;
use self::row_builder::RowBuilder;
use self::source_columns::SourceColumns;
use crate::pipeline::spec::input::DatasetFormat;

pub(super) use self::detect::detect;
pub(super) use self::rename::rename;

/// The problem of a row, or of the columns.
pub(super) struct FormatError {
    /// The row, from 0 in the batch; `None` for a problem of the columns.
    pub(super) row: Option<usize>,
    pub(super) problem: String,
}

impl From<String> for FormatError {
    fn from(problem: String) -> Self {
        Self { row: None, problem }
    }
}

/// The batch's rows with our own columns first, followed by the columns that the dataset format
/// does not use.
///
/// # Errors
/// A row is not of the dataset format, or the result would have a column twice.
pub(super) fn normalize(dataset_format: DatasetFormat, batch: &RecordBatch) -> Result<RecordBatch, FormatError> {
    if matches!(dataset_format, DatasetFormat::Rows | DatasetFormat::Auto) {
        return Ok(batch.clone());
    }
    let sources = SourceColumns::new(dataset_format, batch)?;
    let mut builder = RowBuilder::default();
    for index in 0..batch.num_rows() {
        let row = sources.row(index).and_then(|row| builder.add(row, sources.is_conversation));
        row.map_err(|problem| FormatError { row: Some(index), problem })?;
    }
    let mut columns = builder.finish(&sources);
    let schema = batch.schema();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if sources.used.contains(&field.name().as_str()) {
            continue;
        }
        if columns.iter().any(|(name, _)| name == field.name()) {
            let problem = format!(
                "dataset_format {}: the table has a column {} that its rows would get; rename it with `map:`",
                dataset_format.name(),
                field.name()
            );
            return Err(problem.into());
        }
        columns.push((field.name().clone(), array.clone()));
    }
    Ok(batch_of(columns)?)
}
