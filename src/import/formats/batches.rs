//! Batches of several files of one table: the same columns in all files, and at least one batch a
//! file.
//!
//! Knows no format.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::import::error::ImportError;

/// The names of a file's columns.
pub(super) struct FileColumns<'a> {
    pub(super) path: &'a Path,
    pub(super) names: Vec<String>,
}

impl<'a> FileColumns<'a> {
    /// The names in the file's schema.
    pub(super) fn from_schema(path: &'a Path, schema: &Schema) -> Self {
        Self { path, names: schema.fields().iter().map(|field| field.name().clone()).collect() }
    }
}

/// Checks that all files have the columns of the first one, in any order.
pub(super) fn check_same_columns(files: &[FileColumns]) -> Result<(), ImportError> {
    let Some((first, others)) = files.split_first() else { return Ok(()) };
    for other in others {
        let missing = first.names.iter().find(|name| !other.names.contains(name));
        let added = other.names.iter().find(|name| !first.names.contains(name));
        let (name, with, without) = match (missing, added) {
            (Some(name), _) => (name, first.path, other.path),
            (None, Some(name)) => (name, other.path, first.path),
            (None, None) => continue,
        };
        let problem = format!("expected files of one table to have the same columns, but {} has no column {name}", without.display());
        return Err(ImportError::file(with, problem));
    }
    Ok(())
}

/// The batches, or one empty batch in place of none.
pub(super) fn at_least_one(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Vec<RecordBatch> {
    if batches.is_empty() { vec![RecordBatch::new_empty(schema.clone())] } else { batches }
}

/// The error's text without Arrow's name of its kind.
pub(super) fn arrow_message(error: ArrowError) -> String {
    match error {
        ArrowError::CsvError(text) | ArrowError::JsonError(text) | ArrowError::ParseError(text) | ArrowError::SchemaError(text) => text,
        other => other.to_string(),
    }
}
