//! Batches of several files of one table: at least one batch a file, and the columns that files
//! lack.
//!
//! Knows no format.

use std::collections::BTreeSet;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// The rows of one file: at least one batch, perhaps an empty one.
pub(super) type FileBatches = Vec<RecordBatch>;

/// The rows of several files.
pub struct Rows {
    /// The batches of each file, at least one, all with one schema.
    pub files: Vec<Vec<RecordBatch>>,
    /// The differences between the files: columns that a file lacks, types that were widened, and
    /// values without a common type.
    pub notes: Vec<String>,
}

/// Notes for the columns that some files lack; `names` are those of each file, `None` for a file
/// without rows and columns.
pub(super) fn missing_columns(paths: &[PathBuf], names: &[Option<BTreeSet<String>>]) -> Vec<String> {
    let all: BTreeSet<&String> = names.iter().flatten().flatten().collect();
    let note = |name: &String| {
        let lacks = |names: &Option<BTreeSet<String>>| names.as_ref().is_some_and(|names| !names.contains(name));
        let without: Vec<&PathBuf> = paths.iter().zip(names).filter(|(_, names)| lacks(names)).map(|(path, _)| path).collect();
        let first = without.first()?.display();
        let more = if without.len() > 1 { format!(" and {} more", without.len() - 1) } else { String::new() };
        Some(format!("column {name}: null in {first}{more}, which has no such column"))
    };
    all.into_iter().filter_map(note).collect()
}

/// The batches, or one empty batch in place of none.
pub(super) fn at_least_one(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Vec<RecordBatch> {
    if batches.is_empty() { vec![RecordBatch::new_empty(schema.clone())] } else { batches }
}

/// A name that occurs twice.
pub(super) fn twice<'n>(names: impl IntoIterator<Item = &'n String>) -> Option<&'n String> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// The error's text without Arrow's name of its kind.
pub(super) fn arrow_message(error: ArrowError) -> String {
    match error {
        ArrowError::CsvError(text) | ArrowError::JsonError(text) | ArrowError::ParseError(text) | ArrowError::SchemaError(text) => text,
        ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text) => text,
        other => other.to_string(),
    }
}
