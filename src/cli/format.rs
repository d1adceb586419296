//! Rows as text: aligned columns for people, CSV, JSON lines and Parquet for programs.

use std::path::Path;

use arrow::array::RecordBatch;
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
                writer.write(batch).map_err(failed)?;
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

fn write_parquet(batches: &[RecordBatch], path: &Path) -> Result<(), CliError> {
    let Some(first) = batches.first() else { return Err(CliError::Failed("the query has no columns to write".to_string())) };
    let whole = arrow::compute::concat_batches(&first.schema(), batches).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(crate::store::write_parquet(path, &whole)?)
}
