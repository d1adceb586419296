//! Files with a schema of their own (Parquet, Arrow IPC): their rows with one schema for all files.
//!
//! Knows Arrow's readers, not the formats.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::batches::{FileBatches, Rows, arrow_message, at_least_one, missing_columns, twice};
use super::columns::{ColumnRules, ColumnType, json_field};
use super::convert::{self, convert};
use super::expanded::expanded_bytes;
use super::union::{simple_field, union_field, unreadable};
use crate::catch_panic::catch_panic;
use crate::import::error::ImportError;
use crate::import::limits::Budget;

/// Rows that are converted at once.
const CONVERTED_ROWS: usize = 8192;

/// Opens a file for the columns at these places. Its rows must stay within the budget.
type Open = fn(&Path, &[usize], &Budget) -> Result<Box<dyn RecordBatchReader>, ImportError>;

/// A format of such files.
pub(super) struct Format {
    /// The columns of a file, by its metadata.
    pub(super) schema: fn(&Path) -> Result<SchemaRef, ImportError>,
    /// How it is opened.
    pub(super) open: Open,
}

/// The rows of several files, file by file, with one schema.
pub(super) fn read(format: &Format, rules: &ColumnRules, paths: &[PathBuf], budget: &mut Budget) -> Result<Rows, ImportError> {
    // The libraries panic at some corrupt files.
    let broken = |path: &Path, message: String| ImportError::file(path, format!("the file is broken ({message})"));
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        found.push(catch_panic(|| (format.schema)(path)).map_err(|message| broken(path, message))??);
    }
    let Table { schema, notes } = Table::new(rules, paths, &found)?;
    let mut files = Vec::with_capacity(paths.len());
    for (path, found) in paths.iter().zip(&found) {
        let rows = catch_panic(|| rows(format, rules, path, found, &schema, budget));
        files.push(rows.map_err(|message| broken(path, message))??);
    }
    Ok(Rows { files, notes })
}

/// The columns of all files.
struct Table {
    schema: SchemaRef,
    notes: Vec<String>,
}

impl Table {
    fn new(rules: &ColumnRules, paths: &[PathBuf], found: &[SchemaRef]) -> Result<Self, ImportError> {
        let mut columns: Vec<Column> = Vec::new();
        let mut names = Vec::with_capacity(found.len());
        for (path, schema) in paths.iter().zip(found) {
            if let Some(name) = twice(schema.fields().iter().map(|field| field.name())) {
                return Err(ImportError::file(path, format!("expected different names of columns, found {name:?} twice")));
            }
            names.push(Some(schema.fields().iter().map(|field| field.name().clone()).collect::<BTreeSet<_>>()));
            for field in schema.fields() {
                match columns.iter_mut().find(|column| column.field.name() == field.name()) {
                    Some(column) => column.add(rules, path, field)?,
                    None => columns.push(Column::new(rules, path, field)?),
                }
            }
        }
        let all: Vec<String> = columns.iter().map(|column| column.field.name().clone()).collect();
        rules.check_names(paths, &all)?;
        let mut notes = missing_columns(paths, &names);
        columns.retain(|column| rules.given(column.field.name()) != Some(ColumnType::Skip));
        notes.extend(columns.iter().filter_map(|column| column.note.clone()));
        Ok(Self { schema: Arc::new(Schema::new(columns.into_iter().map(|column| column.field).collect::<Vec<_>>())), notes })
    }
}

/// A column of several files.
struct Column<'a> {
    field: Field,
    /// The file that first has its type.
    path: &'a Path,
    note: Option<String>,
}

impl<'a> Column<'a> {
    fn new(rules: &ColumnRules, path: &'a Path, field: &Field) -> Result<Self, ImportError> {
        let field = match rules.given(field.name()) {
            Some(ColumnType::Json) => json_field(field.name()),
            Some(given) => Field::new(field.name(), given.data_type(), true),
            None => {
                let field = simple_field(field);
                if let Some(name) = unreadable(field.data_type()) {
                    let column = field.name();
                    let problem = format!(
                        "column {column}: expected a type that can be stored, found {name}; leave it out with `columns: {{ {column}: skip }}`, \
                         or write it as text or as a number"
                    );
                    return Err(ImportError::file(path, problem));
                }
                field
            }
        };
        Ok(Self { field, path, note: None })
    }

    /// Widens the type by that of another file.
    fn add(&mut self, rules: &ColumnRules, path: &'a Path, field: &Field) -> Result<(), ImportError> {
        let other = Self::new(rules, path, field)?;
        let (one, two) = (&self.field, &other.field);
        let types = || {
            let (first, second) = (self.path.display(), path.display());
            format!("{} in {first}, {} in {second}", one.data_type(), two.data_type())
        };
        let Some(both) = union_field(one, two) else {
            let name = one.name();
            let problem = format!("column {name}: expected one type in all files, found {}; say `columns: {{ {name}: … }}`", types());
            return Err(ImportError::file(path, problem));
        };
        let widened = [one, two].iter().any(|field| field.data_type() != both.data_type() && !field.data_type().is_null());
        if widened && self.note.is_none() {
            self.note = Some(format!("column {}: {}, read as {}", one.name(), types(), both.data_type()));
        }
        if one.data_type().is_null() {
            self.path = path;
        }
        self.field = both;
        Ok(())
    }
}

/// The rows of one file with the columns of `schema`.
fn rows(
    format: &Format,
    rules: &ColumnRules,
    path: &Path,
    found: &SchemaRef,
    schema: &SchemaRef,
    budget: &mut Budget,
) -> Result<FileBatches, ImportError> {
    let failed = |error: ArrowError| ImportError::file(path, arrow_message(error));
    let is_read = |field: &Field| rules.given(field.name()) != Some(ColumnType::Skip);
    let places: Vec<usize> = (0..found.fields().len()).filter(|index| is_read(found.field(*index))).collect();
    let reader = (format.open)(path, &places, budget)?;
    let mut batches = Vec::new();
    let mut before = 0;
    for batch in reader {
        let batch = batch.map_err(failed)?;
        for start in (0..batch.num_rows().max(1)).step_by(CONVERTED_ROWS) {
            let piece = batch.slice(start, CONVERTED_ROWS.min(batch.num_rows() - start));
            let bytes = piece.columns().iter().fold(0_u64, |sum, column| sum.saturating_add(expanded_bytes(column.as_ref())));
            budget.expect(path, bytes, || format!("found {bytes} more in {} rows", piece.num_rows()))?;
            let piece = conformed(rules, path, &piece, schema, before + start)?;
            budget.take(path, &piece)?;
            batches.push(piece);
        }
        before += batch.num_rows();
    }
    Ok(at_least_one(batches, schema))
}

/// The batch with the columns of `schema`; `before` is its first row in the file.
fn conformed(rules: &ColumnRules, path: &Path, batch: &RecordBatch, schema: &SchemaRef, before: usize) -> Result<RecordBatch, ImportError> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        let converted = match (batch.column_by_name(name), rules.given(name)) {
            (None, _) => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
            (Some(array), None) => convert(array, field.data_type()),
            (Some(array), Some(given)) => {
                let simple = simple_field(&Field::new(name, array.data_type().clone(), true));
                convert(array, simple.data_type()).and_then(|array| convert::given(&array, given))
            }
        };
        columns.push(converted.map_err(|error| {
            let row = error.row.map_or(String::new(), |row| format!("row {}: ", before + row));
            ImportError::file(path, format!("{row}column {name}: {}", error.problem))
        })?);
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &rows).map_err(|error| ImportError::file(path, arrow_message(error)))
}
