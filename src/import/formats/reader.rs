//! Parquet and Arrow IPC from outside: what has its schema in the file.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::file::reader::SerializedFileReader;
use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use super::ending::Ending;
use super::limits::{self, Budget};
use super::{Source, expansion, ipc, message, never_empty};
use crate::catch_panic::catch_panic;
use crate::disk;
use crate::store::StoreError;

/// Opens a file whose rows are to stay within a budget.
type Open = fn(&Path, &Budget) -> Result<Box<dyn RecordBatchReader>, StoreError>;

/// The rows of several files, file by file, all with the columns of the first.
pub(super) fn read(paths: &[PathBuf], open: Open, budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, StoreError> {
    let mut files = Vec::with_capacity(paths.len());
    let mut first: Option<(&Path, SchemaRef)> = None;
    for path in paths {
        // Both readers panic at some files that lie.
        let rows = catch_panic(|| rows(path, open, &mut first, budget));
        let broken = |said| StoreError::Input { path: path.clone(), line: None, problem: format!("the file is broken ({said})") };
        files.push(rows.map_err(broken)??);
    }
    Ok(files)
}

/// The rows of one file, with the columns of the `first`, which it may be.
fn rows<'a>(
    path: &'a Path,
    open: Open,
    first: &mut Option<(&'a Path, SchemaRef)>,
    budget: &mut Budget,
) -> Result<Vec<RecordBatch>, StoreError> {
    let failed = |error: ArrowError| StoreError::Input { path: path.to_path_buf(), line: None, problem: message(error) };
    let reader = open(path, budget)?;
    let schema = Arc::new(Schema::new(reader.schema().fields().clone()));
    let (first_path, expected) = first.get_or_insert_with(|| (path, schema.clone()));
    same(first_path, expected, path, &schema)?;
    let order = expected.fields().iter().map(|field| schema.index_of(field.name())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    // Not `with_schema`, which wants the old metadata to stay.
    let mut rows = Vec::new();
    for batch in reader {
        let ordered = batch.and_then(|batch| RecordBatch::try_new(expected.clone(), batch.project(&order)?.columns().to_vec()));
        let batch = ordered.map_err(failed)?;
        budget.take(path, &batch)?;
        rows.push(batch);
    }
    Ok(never_empty(rows, expected))
}

/// Checks that a file has the columns of the first, in any order, with their types.
fn same(first_path: &Path, first: &Schema, path: &Path, schema: &Schema) -> Result<(), StoreError> {
    let source = |path, schema: &Schema| Source { path, columns: schema.fields().iter().map(|field| field.name().clone()).collect() };
    super::agree(&[source(first_path, first), source(path, schema)])?;
    let differing = first.fields().iter().find_map(|field| {
        let other = schema.field_with_name(field.name()).ok()?;
        (other.data_type() != field.data_type()).then_some((field, other))
    });
    let Some((field, other)) = differing else { return Ok(()) };
    let problem =
        format!("column {}: expected {}, as in {}, found {}", field.name(), field.data_type(), first_path.display(), other.data_type());
    Err(StoreError::Input { path: path.to_path_buf(), line: None, problem })
}

/// A Parquet file, unless it says of itself that it is too large.
pub(super) fn parquet(path: &Path, budget: &Budget) -> Result<Box<dyn RecordBatchReader>, StoreError> {
    let failed = |source| StoreError::Parquet { path: path.to_path_buf(), source };
    let open = || disk::open(path).map(Ending).map_err(StoreError::io("read", path));
    let builder = ParquetRecordBatchReaderBuilder::try_new(open()?).map_err(failed)?;
    let most = limits::batch_rows(path, builder.schema().fields())?;
    expansion::expect(path, builder.metadata(), budget)?;
    let rows = SerializedFileReader::new(open()?).and_then(|reader| expansion::batch_rows(&reader, most)).map_err(failed)?;
    Ok(Box::new(builder.with_batch_size(rows).build().map_err(failed)?))
}

/// An Arrow IPC file or stream.
pub(super) fn arrow(path: &Path, budget: &Budget) -> Result<Box<dyn RecordBatchReader>, StoreError> {
    budget.expect_text(path)?;
    let open = || disk::open(path).map(BufReader::new).map_err(StoreError::io("read", path));
    let failed = |error: ArrowError| StoreError::Input { path: path.to_path_buf(), line: None, problem: message(error) };
    let wrong = |problem| StoreError::Input { path: path.to_path_buf(), line: None, problem };
    let reader: Box<dyn RecordBatchReader> = match ipc::check(path).map_err(StoreError::io("read", path))?.map_err(wrong)? {
        true => Box::new(FileReader::try_new(open()?, None).map_err(failed)?),
        false => Box::new(StreamReader::try_new(open()?, None).map_err(failed)?),
    };
    limits::batch_rows(path, reader.schema().fields())?;
    Ok(reader)
}
