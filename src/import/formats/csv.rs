//! CSV from outside.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::limits::{self, Budget, ShortLines};
use super::{ColumnType, Source, message, never_empty, open};
use crate::store::StoreError;

/// How the values lie in a file.
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
pub(super) fn read(layout: &Layout, paths: &[PathBuf], budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, StoreError> {
    paths.iter().try_for_each(|path| budget.expect_text(path))?;
    let given = || layout.columns.iter().map(|(name, column_type)| Field::new(name, column_type.data_type(), true)).collect::<Vec<_>>();
    let schema = Arc::new(match (layout.columns.is_empty(), layout.header) {
        (true, _) => inferred(layout, paths)?,
        (false, true) => typed(inferred(layout, paths)?, given(), paths)?,
        (false, false) => Schema::new(given()),
    });
    paths.iter().map(|path| rows(layout, path, &schema, budget)).collect()
}

/// The names in the first row and the types that all values of all files have.
fn inferred(layout: &Layout, paths: &[PathBuf]) -> Result<Schema, StoreError> {
    let schema =
        |path: &PathBuf| layout.format().infer_schema(ShortLines::new(open(path)?), None).map(|(schema, _)| schema).map_err(failed(path));
    let schemas = paths.iter().map(schema).collect::<Result<Vec<_>, _>>()?;
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect();
    let sources: Vec<Source> = paths.iter().zip(&schemas).map(|(path, schema)| Source { path, columns: names(schema) }).collect();
    super::agree(&sources)?;
    let mut schemas = schemas.into_iter();
    let first = schemas.next().unwrap_or_else(Schema::empty);
    let (mut fields, mut sources) = (first.fields().to_vec(), sources.into_iter());
    let first = sources.next();
    for (schema, source) in schemas.zip(sources) {
        for (field, other) in fields.iter_mut().zip(schema.fields()) {
            if field.name() != other.name() {
                let first = first.as_ref().map_or(String::new(), |first| first.path.display().to_string());
                let problem = format!("expected the columns in the order of {first}, found {} where {} is", other.name(), field.name());
                return Err(StoreError::Input { path: source.path.to_path_buf(), line: None, problem });
            }
            *field = Arc::new(Field::new(field.name(), wider(field.data_type(), other.data_type()), true));
        }
    }
    Ok(Schema::new(fields))
}

/// The columns of the first row with the types that are given; where all columns are given, and under other names, with these names.
fn typed(found: Schema, given: Vec<Field>, paths: &[PathBuf]) -> Result<Schema, StoreError> {
    let missing = given.iter().find(|field| found.field_with_name(field.name()).is_err());
    if let (Some(missing), Some(path)) = (missing, paths.first()) {
        if given.len() == found.fields().len() {
            return Ok(Schema::new(given));
        }
        let names: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
        let problem = format!("expected a column {}, found {}", missing.name(), names.join(", "));
        return Err(StoreError::Input { path: path.clone(), line: None, problem });
    }
    let typed = |name: &String| given.iter().find(|field| field.name() == name).cloned().map(Arc::new);
    Ok(Schema::new(found.fields().iter().map(|field| typed(field.name()).unwrap_or_else(|| field.clone())).collect::<Vec<_>>()))
}

/// The type that values of both types can be read as.
fn wider(one: &DataType, other: &DataType) -> DataType {
    let number = |data_type: &DataType| matches!(data_type, DataType::Int64 | DataType::Float64);
    match (one, other) {
        _ if one == other => one.clone(),
        (DataType::Null, known) | (known, DataType::Null) => known.clone(),
        _ if number(one) && number(other) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

fn rows(layout: &Layout, path: &Path, schema: &SchemaRef, budget: &mut Budget) -> Result<Vec<RecordBatch>, StoreError> {
    let rows = limits::batch_rows(path, schema.fields())?;
    let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_format(layout.format()).with_batch_size(rows);
    let reader = reader.build_buffered(ShortLines::new(open(path)?)).map_err(failed(path))?;
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(failed(path))?;
        budget.take(path, &batch)?;
        batches.push(batch);
    }
    Ok(never_empty(batches, schema))
}

/// The error at row `row` (from 0) of a file, with the line it begins in.
pub(super) fn wrong_row(layout: &Layout, path: &Path, row: usize, problem: String) -> StoreError {
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.delimiter(layout.delimiter).has_headers(layout.header).flexible(true);
    let records = open(path).ok().map(|file| reader.from_reader(Box::new(file) as Box<dyn Read>).into_byte_records());
    let record = records.and_then(|mut records| records.nth(row)).and_then(Result::ok);
    let line = record.and_then(|record| record.position().map(csv::Position::line));
    StoreError::Input { path: path.to_path_buf(), line, problem }
}

fn failed(path: &Path) -> impl Fn(ArrowError) -> StoreError {
    move |error| {
        let (problem, line) = line_of(message(error));
        StoreError::Input { path: path.to_path_buf(), line, problem }
    }
}

/// Arrow's message about CSV without its line, and that line from 1: Arrow counts from 0 where a value is wrong.
fn line_of(message: String) -> (String, Option<u64>) {
    let Some((before, after)) = message.split_once(" at line ") else { return (message, None) };
    let (number, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
    match number.parse::<u64>() {
        Ok(line) => (format!("{before}{after}"), Some(line + u64::from(before.starts_with("Error while parsing")))),
        Err(_) => (message, None),
    }
}
