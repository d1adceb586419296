//! External CSV files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::batches::{FileColumns, arrow_message, at_least_one, check_same_columns};
use super::input_format::ColumnType;
use super::text_file::{ShortLines, open};
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

/// The layout of the values in a file.
pub(super) struct Layout<'a> {
    pub(super) delimiter: u8,
    pub(super) header: bool,
    pub(super) columns: &'a [(String, ColumnType)],
}

impl Layout<'_> {
    fn format(&self) -> Format {
        Format::default().with_delimiter(self.delimiter).with_header(self.header)
    }
}

/// The rows of several files, file by file, with one schema.
pub(super) fn read(layout: &Layout, paths: &[PathBuf], budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, ImportError> {
    paths.iter().try_for_each(|path| budget.expect_file(path))?;
    let given = || layout.columns.iter().map(|(name, column_type)| Field::new(name, column_type.data_type(), true)).collect::<Vec<_>>();
    let schema = if layout.columns.is_empty() {
        inferred(layout, paths)?
    } else if layout.header {
        typed(inferred(layout, paths)?, given(), paths)?
    } else {
        Schema::new(given())
    };
    let schema = Arc::new(schema);
    paths.iter().map(|path| rows(layout, path, &schema, budget)).collect()
}

/// The names of the first row, with the types of all values of all files.
fn inferred(layout: &Layout, paths: &[PathBuf]) -> Result<Schema, ImportError> {
    let schema =
        |path: &PathBuf| layout.format().infer_schema(ShortLines::new(open(path)?), None).map(|(schema, _)| schema).map_err(failed(path));
    let schemas = paths.iter().map(schema).collect::<Result<Vec<_>, _>>()?;
    let files: Vec<FileColumns> = paths.iter().zip(&schemas).map(|(path, schema)| FileColumns::from_schema(path, schema)).collect();
    check_same_columns(&files)?;
    let mut both = paths.iter().zip(schemas);
    let Some((first_path, first)) = both.next() else { return Ok(Schema::empty()) };
    let mut fields = first.fields().to_vec();
    for (path, schema) in both {
        for (field, other) in fields.iter_mut().zip(schema.fields()) {
            if field.name() != other.name() {
                let first = first_path.display();
                let problem = format!("expected the columns in the order of {first}, found {} where {} is", other.name(), field.name());
                return Err(ImportError::file(path, problem));
            }
            *field = Arc::new(Field::new(field.name(), wider(field.data_type(), other.data_type()), true));
        }
    }
    Ok(Schema::new(fields))
}

/// The columns of the first row with the `given` types. If all columns are given under other names,
/// these names count.
fn typed(found: Schema, given: Vec<Field>, paths: &[PathBuf]) -> Result<Schema, ImportError> {
    let missing = given.iter().find(|field| found.field_with_name(field.name()).is_err());
    if let (Some(missing), Some(path)) = (missing, paths.first()) {
        if given.len() == found.fields().len() {
            return Ok(Schema::new(given));
        }
        let names: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
        let problem = format!("expected a column {}, found {}", missing.name(), names.join(", "));
        return Err(ImportError::file(path, problem));
    }
    let typed = |name: &String| given.iter().find(|field| field.name() == name).cloned().map(Arc::new);
    Ok(Schema::new(found.fields().iter().map(|field| typed(field.name()).unwrap_or_else(|| field.clone())).collect::<Vec<_>>()))
}

/// A type that values of both types can be parsed as.
fn wider(one: &DataType, other: &DataType) -> DataType {
    let number = |data_type: &DataType| matches!(data_type, DataType::Int64 | DataType::Float64);
    match (one, other) {
        _ if one == other => one.clone(),
        (DataType::Null, known) | (known, DataType::Null) => known.clone(),
        _ if number(one) && number(other) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

fn rows(layout: &Layout, path: &Path, schema: &SchemaRef, budget: &mut Budget) -> Result<Vec<RecordBatch>, ImportError> {
    let rows = limits::batch_rows(path, schema.fields())?;
    let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_format(layout.format()).with_batch_size(rows);
    let reader = reader.build_buffered(ShortLines::new(open(path)?)).map_err(failed(path))?;
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(failed(path))?;
        budget.take(path, &batch)?;
        batches.push(batch);
    }
    Ok(at_least_one(batches, schema))
}

/// The error of row `row` (from 0) of a file, with the line it begins in. Without a line if the
/// file cannot be read again.
pub(super) fn row_error(layout: &Layout, path: &Path, row: usize, problem: String) -> ImportError {
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.delimiter(layout.delimiter).has_headers(layout.header).flexible(true);
    let records = open(path).ok().map(|file| reader.from_reader(Box::new(file) as Box<dyn Read>).into_byte_records());
    let record = records.and_then(|mut records| records.nth(row)).and_then(Result::ok);
    let line = record.and_then(|record| record.position().map(csv::Position::line));
    ImportError::File { path: path.to_path_buf(), line, problem }
}

fn failed(path: &Path) -> impl Fn(ArrowError) -> ImportError {
    move |error| {
        let (problem, line) = line_of(arrow_message(error));
        ImportError::File { path: path.to_path_buf(), line, problem }
    }
}

/// Arrow's message about CSV without its line, and this line from 1. Arrow counts from 0 if a value
/// is wrong.
fn line_of(message: String) -> (String, Option<u64>) {
    let Some((before, after)) = message.split_once(" at line ") else { return (message, None) };
    let (number, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
    match number.parse::<u64>() {
        Ok(line) => (format!("{before}{after}"), Some(line + u64::from(before.starts_with("Error while parsing")))),
        Err(_) => (message, None),
    }
}
