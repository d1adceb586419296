//! Rows as text: aligned columns for people, CSV, JSON lines and Parquet for programs.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use clap::ValueEnum;

use super::error::CliError;
use super::terminal::{visible, write_out};

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Json,
    /// A Parquet file; needs `--output`.
    Parquet,
}

/// Prints `text` and a newline to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    write_out(format!("{text}\n").as_bytes())
}

/// The rows in `format`, to `output` or to standard output.
pub(super) fn write(batches: &[RecordBatch], format: Format, output: Option<&Path>) -> Result<(), CliError> {
    if format == Format::Parquet {
        let path = output.ok_or_else(|| CliError::Input("parquet: expected --output FILE".to_string()))?;
        return write_parquet(batches, path);
    }
    let bytes = text(batches, format)?;
    match output {
        Some(path) => std::fs::write(path, bytes).map_err(|error| CliError::Failed(format!("{}: cannot write: {error}", path.display()))),
        None => write_out(&bytes),
    }
}

fn text(batches: &[RecordBatch], format: Format) -> Result<Vec<u8>, CliError> {
    let failed = |error: arrow::error::ArrowError| CliError::Failed(error.to_string());
    let mut bytes = Vec::new();
    match format {
        Format::Csv => {
            let mut writer = arrow::csv::Writer::new(&mut bytes);
            for batch in batches {
                writer.write(&flat(batch).map_err(failed)?).map_err(failed)?;
            }
            drop(writer);
        }
        Format::Json => {
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut bytes);
            for batch in batches {
                writer.write(batch).map_err(failed)?;
            }
            writer.finish().map_err(failed)?;
        }
        Format::Table | Format::Parquet => {
            let table = arrow::util::pretty::pretty_format_batches(batches).map_err(failed)?;
            // Aligned columns are for people, also in a file or behind a pager.
            bytes = format!("{}\n", visible(&table.to_string())).into_bytes();
        }
    }
    Ok(bytes)
}

/// The rows with lists, maps and structs as JSON: csv has no cells in cells.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(as_json(column)?) as ArrayRef);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// The values of a column as JSON, null for null.
fn as_json(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    const BEFORE: &str = "{\"x\":";
    let rows = RecordBatch::try_from_iter_with_nullable([("x", column.clone(), true)])?;
    let mut lines = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
    writer.write(&rows)?;
    writer.finish()?;
    drop(writer);
    let text = String::from_utf8(lines).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    let value = |(row, line): (usize, &str)| -> Result<Option<String>, ArrowError> {
        let value = line.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix('}'));
        let value = value.ok_or_else(|| ArrowError::JsonError(format!("expected an object with x, found {line}")))?;
        Ok(column.is_valid(row).then(|| value.to_string()))
    };
    text.lines().enumerate().map(value).collect()
}

fn write_parquet(batches: &[RecordBatch], path: &Path) -> Result<(), CliError> {
    let Some(first) = batches.first() else { return Err(CliError::Failed("the query has no columns to write".to_string())) };
    let whole = arrow::compute::concat_batches(&first.schema(), batches).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(crate::store::write_parquet(path, &whole)?)
}
