//! External JSON files: one object a line, or an array of objects.
//!
//! Both layouts become the same: one object after the other. A file is never in memory as a whole.
//! It is read twice: for the types of all values, then for the values.

mod builder;
mod objects;
mod shape;
mod value;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use indexmap::IndexMap;

use self::builder::{Builder, append_members};
use self::objects::{Objects, error_at};
use self::shape::{Mixed, Place, Shape, ValueType};
use self::value::{Item, Value, parse_object};
use super::batches::{FileBatches, Rows, arrow_message, at_least_one, missing_columns};
use super::columns::{ColumnRules, ColumnType};
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

pub(super) use self::objects::Layout;
pub(super) use self::shape::has_equal_float;

/// A batch ends behind the row that reaches this number of bytes.
const BATCH_BYTES: usize = 32 << 20;

/// The rows of several files, file by file, with one schema for all their values.
pub(super) fn read(layout: Layout, rules: &ColumnRules, paths: &[PathBuf], budget: &mut Budget) -> Result<Rows, ImportError> {
    let mut table = Table::new(layout, rules, paths);
    for (file, path) in paths.iter().enumerate() {
        table.add_file(file, path, budget)?;
    }
    table.check_expansion(paths)?;
    let mut notes = missing_columns(paths, &table.names);
    let types = table.types(rules, paths, &mut notes)?;
    let files = paths.iter().map(|path| rows(layout, path, &types, budget)).collect::<Result<_, _>>()?;
    Ok(Rows { files, notes })
}

/// Whether a text is one JSON value.
pub(super) fn check(text: &str) -> Result<(), String> {
    value::parse(text.as_bytes()).map(drop).map_err(|fault| fault.to_string())
}

/// The text in a JSON value: of a text itself, of a number or a Boolean its spelling; `None` for
/// null.
///
/// # Errors
/// A list or an object, by its kind; or no JSON.
pub(in crate::import) fn scalar_text(json: &str) -> Result<Option<String>, String> {
    let item = value::parse(json.as_bytes()).map_err(|fault| fault.to_string())?;
    match item.value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text.into_owned())),
        Value::Number(_) | Value::Boolean(_) => Ok(Some(item.raw.to_string())),
        Value::List(_) | Value::Object(_) => Err(format!("expected text, found {}", item.value.kind())),
    }
}

/// The error of row `row` (from 0) of a file, with its line from 1 if the layout has lines.
pub(super) fn row_error(layout: Layout, path: &Path, row: usize, problem: String) -> ImportError {
    let line = match layout {
        // The file was read before. If this fails now, the error has the row instead of the line.
        Layout::Lines => {
            Objects::open(layout, path).ok().and_then(|mut objects| objects.nth(row)).and_then(Result::ok).map(|(line, _)| line)
        }
        Layout::Array => None,
    };
    error_at(path, line, row, problem)
}

/// Calls `each` with the members of each object of a file, and its line and row.
fn for_each(
    layout: Layout,
    path: &Path,
    mut each: impl FnMut(&[(std::borrow::Cow<str>, Item)], u64, usize, usize) -> Result<(), Failure>,
) -> Result<(), ImportError> {
    for (row, object) in Objects::open(layout, path)?.enumerate() {
        let (line, bytes) = object?;
        let done = parse_object(&bytes).map_err(Failure::Row).and_then(|item| match &item.value {
            Value::Object(members) => each(members, line, row, bytes.len()),
            // `parse_object` returns objects only.
            _ => Ok(()),
        });
        done.map_err(|failure| match failure {
            Failure::Row(problem) => error_at(path, (layout == Layout::Lines).then_some(line), row, problem),
            Failure::File(error) => error,
        })?;
    }
    Ok(())
}

/// A problem of a row, or an error of its own.
enum Failure {
    Row(String),
    File(ImportError),
}

/// The columns of several files, found from all their values.
struct Table<'a> {
    layout: Layout,
    rules: &'a ColumnRules,
    columns: IndexMap<String, Shape>,
    /// The columns that the user leaves out.
    skipped: BTreeSet<String>,
    /// The names of the columns of each file with rows.
    names: Vec<Option<BTreeSet<String>>>,
    rows: u64,
    /// The bytes of all rows.
    bytes: u64,
}

impl<'a> Table<'a> {
    fn new(layout: Layout, rules: &'a ColumnRules, paths: &[PathBuf]) -> Self {
        Self { layout, rules, columns: IndexMap::new(), skipped: BTreeSet::new(), names: vec![None; paths.len()], rows: 0, bytes: 0 }
    }

    fn add_file(&mut self, file: usize, path: &Path, budget: &Budget) -> Result<(), ImportError> {
        budget.expect_file(path)?;
        let before = self.bytes;
        for_each(self.layout, path, |members, line, row, bytes| {
            // A compressed file may be far larger than it seems.
            self.bytes += bytes as u64;
            let found = self.bytes - before;
            budget.expect(path, found, || format!("found {found} and more")).map_err(Failure::File)?;
            let names = self.names[file].get_or_insert_default();
            for (name, item) in members {
                if self.rules.given(name) == Some(ColumnType::Skip) {
                    if !self.skipped.contains(name.as_ref()) {
                        self.skipped.insert(name.to_string());
                    }
                    continue;
                }
                if !names.contains(name.as_ref()) {
                    names.insert(name.to_string());
                }
                let place = Place { file, line, row };
                match self.columns.get_mut(name.as_ref()) {
                    Some(shape) => shape.add(item, place),
                    None => self.columns.entry(name.to_string()).or_default().add(item, place),
                }
            }
            self.rows += 1;
            Ok(())
        })
    }

    /// The type of each column. Notes columns without a common type.
    fn types(&self, rules: &ColumnRules, paths: &[PathBuf], notes: &mut Vec<String>) -> Result<IndexMap<String, ValueType>, ImportError> {
        rules.check_names(paths, self.columns.keys().chain(&self.skipped))?;
        let mut types = IndexMap::new();
        let mut mixed = Vec::new();
        for (name, shape) in &self.columns {
            let value_type = match rules.given(name) {
                Some(given) => ValueType::given(given),
                None if rules.messages.contains(name) && shape.has_objects() => ValueType::Json,
                None => shape.value_type(name, &rules.texts, &mut mixed),
            };
            types.insert(name.clone(), value_type);
        }
        notes.extend(mixed.iter().map(|mixed| self.note(mixed, paths)));
        Ok(types)
    }

    fn note(&self, mixed: &Mixed, paths: &[PathBuf]) -> String {
        let at = |(kind, place): &(&str, Place)| {
            let path = paths.get(place.file).map_or(String::new(), |path| path.display().to_string());
            match self.layout {
                Layout::Lines => format!("{kind} at {path}:{}", place.line),
                Layout::Array => format!("{kind} in row {} of {path}", place.row),
            }
        };
        let found = mixed.kinds.iter().map(at).collect::<Vec<_>>().join(", ");
        let reason = if mixed.kinds.len() > 1 { "values of several types" } else { "numbers that no 64-bit type holds exactly" };
        format!("column {}: {reason} ({found}), kept as JSON text", mixed.path)
    }

    /// Checks that the table is not many times as large as its files. It is if each row has columns
    /// of its own: all other rows have nulls there.
    fn check_expansion(&self, paths: &[PathBuf]) -> Result<(), ImportError> {
        /// The values that any table may have.
        const MOST_CELLS: u64 = 1 << 25;
        /// The values that a table may have for each byte of its files. Rows that write most of
        /// their values, `null` included, have fewer.
        const MOST_CELLS_A_BYTE: u64 = 16;
        let columns: u64 = self.columns.values().map(Shape::count).sum();
        let bytes = self.bytes;
        if self.rows.saturating_mul(columns) <= MOST_CELLS.max(bytes.saturating_mul(MOST_CELLS_A_BYTE)) {
            return Ok(());
        }
        let rows = self.rows;
        let problem = format!(
            "expected rows with mostly the same columns, found {columns} columns and fields in {rows} rows, of {bytes} bytes in all, so that nearly \
             every value would be null; write what differs from row to row as a list of names and values, or as one text"
        );
        let first = paths.first().ok_or_else(|| ImportError::Internal("a table without files".to_string()))?;
        Err(ImportError::file(first, problem))
    }
}

/// The rows of a file with columns of these types.
fn rows(layout: Layout, path: &Path, types: &IndexMap<String, ValueType>, budget: &mut Budget) -> Result<FileBatches, ImportError> {
    let schema = Arc::new(Schema::new(types.iter().map(|(name, value_type)| value_type.field(name)).collect::<Vec<_>>()));
    let most = limits::batch_rows(path, schema.fields())?;
    let mut columns: IndexMap<String, Builder> = types.iter().map(|(name, value_type)| (name.clone(), Builder::new(value_type))).collect();
    let mut batches = Vec::new();
    let mut waiting = 0;
    let mut waiting_bytes = 0;
    for_each(layout, path, |members, _, _, bytes| {
        append_members(&mut columns, waiting, members).map_err(|problem| Failure::Row(format!("column {problem}")))?;
        waiting += 1;
        waiting_bytes += bytes;
        if waiting == most || waiting_bytes >= BATCH_BYTES {
            batches.push(finish(path, &schema, &mut columns, waiting, budget).map_err(Failure::File)?);
            waiting = 0;
            waiting_bytes = 0;
        }
        Ok(())
    })?;
    if waiting > 0 {
        batches.push(finish(path, &schema, &mut columns, waiting, budget)?);
    }
    Ok(at_least_one(batches, &schema))
}

fn finish(
    path: &Path,
    schema: &SchemaRef,
    columns: &mut IndexMap<String, Builder>,
    rows: usize,
    budget: &mut Budget,
) -> Result<RecordBatch, ImportError> {
    let whole = |error: ArrowError| ImportError::file(path, arrow_message(error));
    let arrays = columns.values_mut().map(Builder::finish).collect::<Result<Vec<_>, _>>().map_err(whole)?;
    let rows = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &rows).map_err(whole)?;
    budget.take(path, &batch)?;
    Ok(batch)
}
