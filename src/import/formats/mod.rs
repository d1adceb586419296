//! Files from outside: tables in the usual formats as Arrow batches, and the fingerprints of files and folders.

mod columnar;
mod csv;
mod ending;
mod expansion;
mod ipc;
mod json;
mod limits;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, NullArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use self::limits::Budget;
use crate::disk;
use crate::store::StoreError;

/// Rows a batch.
const BATCH_ROWS: usize = 8192;

/// How the files of a table from outside are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// Parquet.
    Parquet,
    /// Values with a delimiter between them.
    Csv {
        /// The delimiter, one byte.
        delimiter: u8,
        /// Whether the first line has the columns' names.
        header: bool,
        /// The columns in the order of the file. If empty, names come from the header (without one: `column_1`, …), types from all values.
        columns: Vec<(String, ColumnType)>,
    },
    /// One JSON object a line; types come from all values.
    JsonLines,
    /// An array of JSON objects, or an object with one such array in it; types come from all values.
    Json,
    /// Arrow IPC, a file or a stream.
    Arrow,
}

/// The type of a CSV column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Utf8.
    Text,
    /// Int64.
    Integer,
    /// Float64.
    Number,
    /// Boolean.
    Boolean,
}

impl ColumnType {
    fn data_type(self) -> DataType {
        match self {
            ColumnType::Text => DataType::Utf8,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
        }
    }
}

impl InputFormat {
    /// The format that the file's name says: `.parquet`, `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json`, `.arrow`, `.feather`, `.ipc`; `None`
    /// for other names.
    pub fn of_path(path: &Path) -> Option<Self> {
        let csv = |delimiter| InputFormat::Csv { delimiter, header: true, columns: Vec::new() };
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" => Some(InputFormat::Parquet),
            "csv" => Some(csv(b',')),
            "tsv" => Some(csv(b'\t')),
            "jsonl" | "ndjson" => Some(InputFormat::JsonLines),
            "json" => Some(InputFormat::Json),
            "arrow" | "feather" | "ipc" => Some(InputFormat::Arrow),
            _ => None,
        }
    }
}

/// All rows of a file, in order: at least one batch, maybe an empty one.
///
/// # Errors
/// As [`read_inputs`].
pub fn read_input(format: &InputFormat, path: &Path) -> Result<Vec<RecordBatch>, StoreError> {
    Ok(read_inputs(format, &[path.to_path_buf()], u64::MAX)?.into_iter().flatten().collect())
}

/// All rows of several files in order, file by file: each at least one batch, maybe an empty one, and all of one schema. Together they take
/// at most `max_bytes` of memory.
///
/// # Errors
/// A file cannot be read, a row is not what the format says (with its line, or its row from 0 where the format has no lines), or files
/// differ in their columns; there are too many columns, a row of text is too long, or all rows together take more memory than they may.
pub fn read_inputs(format: &InputFormat, paths: &[PathBuf], max_bytes: u64) -> Result<Vec<Vec<RecordBatch>>, StoreError> {
    let mut budget = Budget::new(max_bytes);
    match format {
        InputFormat::Parquet => columnar::read(paths, columnar::parquet, &mut budget),
        InputFormat::Arrow => columnar::read(paths, columnar::arrow, &mut budget),
        InputFormat::Csv { delimiter, header, columns } => {
            csv::read(&csv::Layout { delimiter: *delimiter, header: *header, columns }, paths, &mut budget)
        }
        InputFormat::JsonLines => json::read(json::Layout::Lines, paths, &mut budget),
        InputFormat::Json => json::read(json::Layout::Array, paths, &mut budget),
    }
}

/// The error that something is wrong with row `row` (from 0) of a file: with its line where the format has lines, else with the row.
pub fn wrong_row(format: &InputFormat, path: &Path, row: usize, problem: String) -> StoreError {
    match format {
        InputFormat::Csv { delimiter, header, columns } => {
            csv::wrong_row(&csv::Layout { delimiter: *delimiter, header: *header, columns }, path, row, problem)
        }
        InputFormat::JsonLines => json::wrong_row(json::Layout::Lines, path, row, problem),
        InputFormat::Json => json::wrong_row(json::Layout::Array, path, row, problem),
        InputFormat::Parquet | InputFormat::Arrow => {
            StoreError::Input { path: path.to_path_buf(), line: None, problem: format!("row {row}: {problem}") }
        }
    }
}

/// The array with nulls in the place of structs without fields, which Parquet cannot hold: what `{}` is read as where it is always empty.
fn storable(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    fn is_storable(data_type: &DataType) -> bool {
        match data_type {
            DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_storable(field.data_type())),
            DataType::List(item) => is_storable(item.data_type()),
            _ => true,
        }
    }
    if is_storable(array.data_type()) {
        return Ok(array.clone());
    }
    if let Some(lists) = array.as_list_opt::<i32>() {
        let values = storable(lists.values())?;
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        return Ok(Arc::new(ListArray::try_new(item, lists.offsets().clone(), values, lists.nulls().cloned())?));
    }
    match array.as_struct_opt() {
        Some(fields) if fields.num_columns() > 0 => {
            let columns = fields.columns().iter().map(storable).collect::<Result<Vec<_>, _>>()?;
            let named =
                fields.fields().iter().zip(&columns).map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
            Ok(Arc::new(StructArray::try_new(named.collect(), columns, fields.nulls().cloned())?))
        }
        _ => Ok(Arc::new(NullArray::new(array.len()))),
    }
}

/// The batch with columns that Parquet can hold.
fn storable_batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(storable).collect::<Result<Vec<_>, _>>()?;
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields: Vec<Field> =
        fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), field.is_nullable())).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
}

/// A file and the names of its columns.
struct Source<'a> {
    path: &'a Path,
    columns: Vec<String>,
}

/// Checks that all files have the columns of the first one, in any order.
fn agree(sources: &[Source]) -> Result<(), StoreError> {
    let Some((first, others)) = sources.split_first() else { return Ok(()) };
    for source in others {
        let missing = first.columns.iter().find(|column| !source.columns.contains(column));
        let added = source.columns.iter().find(|column| !first.columns.contains(column));
        let (column, with, without) = match (missing, added) {
            (Some(column), _) => (column, first.path, source.path),
            (None, Some(column)) => (column, source.path, first.path),
            (None, None) => continue,
        };
        let problem = format!("expected files of one table to have the same columns, but {} has no column {column}", without.display());
        return Err(StoreError::Input { path: with.to_path_buf(), line: None, problem });
    }
    Ok(())
}

/// A text file from its first byte behind a byte order mark.
fn open(path: &Path) -> Result<Box<dyn BufRead>, StoreError> {
    let mut reader = disk::open(path).map(BufReader::new).map_err(StoreError::io("read", path))?;
    let begin = reader.fill_buf().map_err(StoreError::io("read", path))?;
    let wrong = |found: &str| {
        Err(StoreError::Input { path: path.to_path_buf(), line: None, problem: format!("expected text in UTF-8, found {found}") })
    };
    match begin {
        [0xef, 0xbb, 0xbf, ..] => reader.consume(3),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return wrong("UTF-16"),
        [0x1f, 0x8b, ..] => return wrong("gzip; unpack it first"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return wrong("zstd; unpack it first"),
        _ => {}
    }
    Ok(Box::new(reader))
}

fn never_empty(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Vec<RecordBatch> {
    if batches.is_empty() { vec![RecordBatch::new_empty(schema.clone())] } else { batches }
}

/// The reader's words without its name for the kind of error.
fn message(error: ArrowError) -> String {
    match error {
        ArrowError::CsvError(text) | ArrowError::JsonError(text) | ArrowError::ParseError(text) | ArrowError::SchemaError(text) => text,
        other => other.to_string(),
    }
}
