//! Files with a schema of their own (Parquet, Arrow IPC): their rows with the columns of the first
//! file.
//!
//! Knows Arrow's readers, not the formats.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use super::batches::{FileColumns, arrow_message, at_least_one, check_same_columns};
use crate::catch_panic::catch_panic;
use crate::import::error::ImportError;
use crate::import::limits::Budget;

/// Opens a file. Its rows must stay within the budget.
pub(super) type Open = fn(&Path, &Budget) -> Result<Box<dyn RecordBatchReader>, ImportError>;

/// The rows of several files, file by file, all with the columns of the first.
pub(super) fn read(paths: &[PathBuf], open: Open, budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, ImportError> {
    let mut files = Vec::with_capacity(paths.len());
    let mut first: Option<(&Path, SchemaRef)> = None;
    for path in paths {
        // The libraries panic at some corrupt files.
        let rows = catch_panic(|| rows(path, open, &mut first, budget));
        files.push(rows.map_err(|message| ImportError::file(path, format!("the file is broken ({message})")))??);
    }
    Ok(files)
}

/// The rows of one file, with the columns of the `first` file; the first call sets it.
fn rows<'a>(
    path: &'a Path,
    open: Open,
    first: &mut Option<(&'a Path, SchemaRef)>,
    budget: &mut Budget,
) -> Result<Vec<RecordBatch>, ImportError> {
    let failed = |error: ArrowError| ImportError::file(path, arrow_message(error));
    let reader = open(path, budget)?;
    let schema = Arc::new(Schema::new(reader.schema().fields().clone()));
    let (first_path, expected) = first.get_or_insert_with(|| (path, schema.clone()));
    check_same_types(first_path, expected, path, &schema)?;
    let order = expected.fields().iter().map(|field| schema.index_of(field.name())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    // `with_schema` would demand the old metadata.
    let mut rows = Vec::new();
    for batch in reader {
        let ordered = batch.and_then(|batch| RecordBatch::try_new(expected.clone(), batch.project(&order)?.columns().to_vec()));
        let batch = ordered.map_err(failed)?;
        budget.take(path, &batch)?;
        rows.push(batch);
    }
    Ok(at_least_one(rows, expected))
}

/// Checks that a file has the columns of the first, in any order, with their types.
fn check_same_types(first_path: &Path, first: &Schema, path: &Path, schema: &Schema) -> Result<(), ImportError> {
    check_same_columns(&[FileColumns::from_schema(first_path, first), FileColumns::from_schema(path, schema)])?;
    let differing = first.fields().iter().find_map(|field| {
        let other = schema.field_with_name(field.name()).ok()?;
        (other.data_type() != field.data_type()).then_some((field, other))
    });
    let Some((field, other)) = differing else { return Ok(()) };
    let problem =
        format!("column {}: expected {}, as in {}, found {}", field.name(), field.data_type(), first_path.display(), other.data_type());
    Err(ImportError::file(path, problem))
}
