//! The schema of JSON files, inferred from the values of all rows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema_from_iterator;
use serde_json::Value;

use super::objects::{Layout, Objects, error_at};
use crate::import::error::ImportError;
use crate::import::formats::batches::{FileColumns, arrow_message, check_same_columns};

/// Infers the schema of all values of all files, and checks that the files have the same columns.
pub(super) fn infer(layout: Layout, paths: &[PathBuf]) -> Result<Schema, ImportError> {
    let mut values = Values::new(layout, paths);
    let inferred = infer_json_schema_from_iterator(values.by_ref());
    if let Some(error) = values.failed {
        return Err(error);
    }
    let schema = inferred.map_err(|error| {
        let problem = format!("a value does not fit those before it: {}", arrow_message(error));
        match values.last {
            Some(Position { path, line, row }) => error_at(path, line, row, problem),
            None => ImportError::Input(problem),
        }
    })?;
    let columns = paths.iter().zip(values.columns);
    let files: Vec<FileColumns> = columns.map(|(path, names)| FileColumns { path, names: names.into_iter().collect() }).collect();
    check_same_columns(&files)?;
    check_expansion(&schema, values.rows, paths)?;
    Ok(schema)
}

/// The place of an object, for an error.
struct Position<'a> {
    path: &'a Path,
    line: Option<u64>,
    row: usize,
}

/// The objects of all files, parsed. It stops at the first error, because the inference accepts
/// errors of Arrow only.
struct Values<'a> {
    layout: Layout,
    paths: &'a [PathBuf],
    /// The file in reading: its path and its objects.
    file: Option<(&'a Path, Objects)>,
    /// The names of the columns of each file opened so far.
    columns: Vec<BTreeSet<String>>,
    rows: u64,
    /// The last object. An error of the inference is about it.
    last: Option<Position<'a>>,
    failed: Option<ImportError>,
}

impl<'a> Values<'a> {
    fn new(layout: Layout, paths: &'a [PathBuf]) -> Self {
        Self { layout, paths, file: None, columns: Vec::new(), rows: 0, last: None, failed: None }
    }

    /// The next object; `None` behind the last file.
    fn next_object(&mut self) -> Result<Option<Value>, ImportError> {
        loop {
            let Some((path, objects)) = &mut self.file else {
                let Some(path) = self.paths.get(self.columns.len()) else { return Ok(None) };
                self.columns.push(BTreeSet::new());
                self.file = Some((path, Objects::open(self.layout, path)?));
                continue;
            };
            let path = *path;
            let row = objects.row;
            let Some(object) = objects.next() else {
                self.file = None;
                continue;
            };
            let (line, bytes) = object?;
            let line = (self.layout == Layout::Lines).then_some(line);
            self.last = Some(Position { path, line, row });
            let value = parse_object(&bytes).map_err(|problem| error_at(path, line, row, problem))?;
            self.rows += 1;
            if let (Some(names), Some(object)) = (self.columns.last_mut(), value.as_object()) {
                for key in object.keys() {
                    if !names.contains(key) {
                        names.insert(key.clone());
                    }
                }
            }
            return Ok(Some(value));
        }
    }
}

impl Iterator for Values<'_> {
    type Item = Result<Value, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_object() {
            Ok(value) => value.map(Ok),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }
}

/// The values that any table may have.
const MOST_CELLS: u64 = 1 << 25;
/// The values that a table may have for each byte of its files. Rows that write most of their
/// values, `null` included, have fewer.
const MOST_CELLS_A_BYTE: u64 = 16;

/// Checks that the table is not many times as large as its files. It is if each row has columns of
/// its own: all other rows have nulls there.
fn check_expansion(schema: &Schema, rows: u64, paths: &[PathBuf]) -> Result<(), ImportError> {
    fn count(data_type: &DataType) -> u64 {
        1 + match data_type {
            DataType::Struct(fields) => fields.iter().map(|field| count(field.data_type())).sum(),
            DataType::List(item) => count(item.data_type()),
            _ => 0,
        }
    }
    let columns: u64 = schema.fields().iter().map(|field| count(field.data_type())).sum();
    let mut bytes = 0_u64;
    for path in paths {
        bytes = bytes.saturating_add(path.metadata().map_err(ImportError::io(path))?.len());
    }
    if rows.saturating_mul(columns) <= MOST_CELLS.max(bytes.saturating_mul(MOST_CELLS_A_BYTE)) {
        return Ok(());
    }
    let problem = format!(
        "expected rows with mostly the same columns, found {columns} columns and fields in {rows} rows, of {bytes} bytes in all, so that nearly \
         every value would be null; write what differs from row to row as a list of names and values, or as one text"
    );
    let first = paths.first().ok_or_else(|| ImportError::Internal("a table without files".to_string()))?;
    Err(ImportError::file(first, problem))
}

/// Parses a JSON object; the error is the problem for a message.
fn parse_object(bytes: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err("expected a JSON object, found another JSON value".to_string()),
        Err(error) => {
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or(&text);
            Err(format!("expected a JSON object, found {problem} at byte {}", error.column()))
        }
    }
}
