//! External files in the usual formats, as Arrow batches.
//!
//! ```text
//! parquet, ipc ─▶ union, convert ─┐
//! csv, json ─▶ text_file ─────────┴▶ batches of one schema, within the limits
//! ```
//! Knows files. Knows nothing of prompts or preferences.

mod batches;
mod columns;
mod convert;
mod csv;
mod expanded;
mod input_format;
mod ipc;
mod json;
mod parquet;
mod reader;
mod text_file;
mod union;

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

use super::error::ImportError;
use super::limits::Budget;

pub use batches::Rows;
pub(super) use columns::is_json;
pub use columns::{ColumnRules, ColumnType, json_field};
pub use input_format::InputFormat;
pub(super) use json::scalar_text;

/// All rows of a file, in order: at least one batch, perhaps an empty one.
///
/// # Errors
/// As [`read_inputs`].
pub fn read_input(format: &InputFormat, rules: &ColumnRules, path: &Path) -> Result<Vec<RecordBatch>, ImportError> {
    Ok(read_inputs(format, rules, &[path.to_path_buf()], u64::MAX)?.files.into_iter().flatten().collect())
}

/// All rows of several files in order, file by file. Their columns are joined by name: a column
/// that a file lacks is null there, and types are widened where this loses nothing. Together the
/// rows take at most `max_bytes` of memory.
///
/// # Errors
/// A file cannot be read; a row is not of the format (with its line, or its row from 0 if the
/// format has no lines); a column's types in two files have none in common; two columns have the
/// same name; there are too many columns; a row of text is too long; all rows together exceed
/// `max_bytes`.
pub fn read_inputs(format: &InputFormat, rules: &ColumnRules, paths: &[PathBuf], max_bytes: u64) -> Result<Rows, ImportError> {
    let mut budget = Budget::new(max_bytes);
    match format {
        InputFormat::Parquet => parquet::read(rules, paths, &mut budget),
        InputFormat::Arrow => ipc::read(rules, paths, &mut budget),
        InputFormat::Csv { delimiter, header } => {
            csv::read(csv::Layout { delimiter: *delimiter, header: *header }, rules, paths, &mut budget)
        }
        InputFormat::JsonLines => json::read(json::Layout::Lines, rules, paths, &mut budget),
        InputFormat::Json => json::read(json::Layout::Array, rules, paths, &mut budget),
    }
}

/// The error of row `row` (from 0) of a file: with its line if the format has lines, else with the
/// row.
pub(super) fn row_error(format: &InputFormat, path: &Path, row: usize, problem: String) -> ImportError {
    match format {
        InputFormat::Csv { delimiter, header } => {
            csv::row_error(csv::Layout { delimiter: *delimiter, header: *header }, path, row, problem)
        }
        InputFormat::JsonLines => json::row_error(json::Layout::Lines, path, row, problem),
        InputFormat::Json => json::row_error(json::Layout::Array, path, row, problem),
        InputFormat::Parquet | InputFormat::Arrow => ImportError::file(path, format!("row {row}: {problem}")),
    }
}
