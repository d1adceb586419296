//! External csv files. They are read twice: for the types of all values, then for the values.

mod column;
mod records;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use indexmap::IndexMap;

use self::column::{Column, Guess, field};
use self::records::{Record, Records};
use super::batches::{FileBatches, Rows, arrow_message, at_least_one, missing_columns, twice};
use super::columns::{ColumnRules, ColumnType};
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

/// A batch ends behind the row that reaches this number of bytes.
const BATCH_BYTES: usize = 32 << 20;

/// The layout of the values in a file.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) delimiter: u8,
    pub(super) header: bool,
}

/// The rows of several files, file by file, with one schema.
pub(super) fn read(layout: Layout, rules: &ColumnRules, paths: &[PathBuf], budget: &mut Budget) -> Result<Rows, ImportError> {
    let mut guesses: IndexMap<String, Guess> = IndexMap::new();
    let mut names = Vec::with_capacity(paths.len());
    for path in paths {
        budget.expect_file(path)?;
        let mut file = File::open(layout, rules, path)?;
        for name in file.names.iter().flatten() {
            guesses.entry(name.clone()).or_default();
        }
        let indices: Vec<usize> = file.names.iter().flatten().filter_map(|name| guesses.get_index_of(name)).collect();
        names.push(file.names.as_ref().map(|names| names.iter().cloned().collect::<BTreeSet<String>>()));
        let mut bytes = 0;
        file.for_each(|record, _| {
            // A compressed file may be far larger than it seems.
            bytes += record.bytes() as u64;
            budget.expect(path, bytes, || format!("found {bytes} and more")).map_err(Failure::File)?;
            for (index, guess) in indices.iter().enumerate() {
                // Indices of `guesses` stay valid: none is removed.
                guesses[*guess].add(record.get(index));
            }
            Ok(())
        })?;
    }
    if guesses.is_empty() {
        // Empty files. Of one column or more if the user names some.
        guesses.extend(rules.given.iter().map(|(name, _)| (name.clone(), Guess::default())));
    }
    rules.check_names(paths, guesses.keys())?;
    let types: IndexMap<String, Option<ColumnType>> = guesses
        .into_iter()
        .map(|(name, guess)| {
            let found = guess.column_type();
            let text = found.filter(|_| rules.texts.contains(&name)).map(|_| ColumnType::Text);
            let column_type = rules.given(&name).or(text).or(found);
            (name, column_type)
        })
        .collect();
    let notes = missing_columns(paths, &names);
    let files = paths.iter().map(|path| rows(layout, rules, path, &types, budget)).collect::<Result<_, _>>()?;
    Ok(Rows { files, notes })
}

/// A file behind its header.
struct File {
    path: PathBuf,
    /// The names of the columns; `None` for an empty file.
    names: Option<Vec<String>>,
    records: Records,
}

impl File {
    fn open(layout: Layout, rules: &ColumnRules, path: &Path) -> Result<Self, ImportError> {
        let mut records = Records::open(path, layout.delimiter)?;
        let names = if layout.header {
            records.next(false)?.map(Record::texts)
        } else {
            Some(rules.given.iter().map(|(name, _)| name.clone()).collect())
        };
        if let Some(name) = names.iter().flatten().next().and_then(|_| twice(names.iter().flatten())) {
            let problem = format!("expected different names of columns, found {name:?} twice in the header");
            return Err(records.wrong(1, problem));
        }
        Ok(Self { path: path.to_path_buf(), names, records })
    }

    /// Calls `each` with every record and its row. Checks their lengths.
    fn for_each(&mut self, mut each: impl FnMut(&Record, usize) -> Result<(), Failure>) -> Result<(), ImportError> {
        let Some(names) = &self.names else { return Ok(()) };
        let mut row = 0;
        while let Some(record) = self.records.next(names.len() == 1)? {
            let line = record.line;
            if record.len() != names.len() {
                let hint = if record.len() > names.len() { "; a value with the delimiter in it needs quotes" } else { "" };
                let problem = format!("expected {} values, as there are columns, found {}{hint}", names.len(), record.len());
                return Err(self.records.wrong(line, problem));
            }
            each(record, row).map_err(|failure| match failure {
                Failure::Row(problem) => ImportError::File { path: self.path.clone(), line: Some(line), problem },
                Failure::File(error) => error,
            })?;
            row += 1;
        }
        Ok(())
    }
}

/// A problem of a row, or an error of its own.
enum Failure {
    Row(String),
    File(ImportError),
}

/// The rows of a file with all columns of the table.
fn rows(
    layout: Layout,
    rules: &ColumnRules,
    path: &Path,
    types: &IndexMap<String, Option<ColumnType>>,
    budget: &mut Budget,
) -> Result<FileBatches, ImportError> {
    let schema = Arc::new(Schema::new(types.iter().filter_map(|(name, column_type)| field(name, *column_type)).collect::<Vec<_>>()));
    let most = limits::batch_rows(path, schema.fields())?;
    let mut file = File::open(layout, rules, path)?;
    let own = file.names.clone().unwrap_or_default();
    let place = |name: &String| own.iter().position(|own| own == name);
    let mut columns: Vec<(&String, Option<usize>, Column)> =
        types.iter().map(|(name, column_type)| (name, place(name), Column::new(*column_type))).collect();
    let mut batches = Vec::new();
    let mut waiting = 0;
    let mut waiting_bytes = 0;
    file.for_each(|record, _| {
        for (name, index, column) in &mut columns {
            let value = index.map_or(records::Field::Missing, |index| record.get(index));
            column.append(value).map_err(|problem| Failure::Row(format!("column {name}: {problem}")))?;
        }
        waiting += 1;
        waiting_bytes += record.bytes();
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
    columns: &mut [(&String, Option<usize>, Column)],
    rows: usize,
    budget: &mut Budget,
) -> Result<RecordBatch, ImportError> {
    let arrays = columns.iter_mut().filter_map(|(_, _, column)| column.finish()).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch =
        RecordBatch::try_new_with_options(schema.clone(), arrays, &rows).map_err(|error| ImportError::file(path, arrow_message(error)))?;
    budget.take(path, &batch)?;
    Ok(batch)
}

/// The error of row `row` (from 0) of a file, with the line it begins in. Without a line if the
/// file cannot be read again.
pub(super) fn row_error(layout: Layout, path: &Path, row: usize, problem: String) -> ImportError {
    let line = line_of(layout, path, row).ok().flatten();
    ImportError::File { path: path.to_path_buf(), line, problem }
}

fn line_of(layout: Layout, path: &Path, row: usize) -> Result<Option<u64>, ImportError> {
    let single = Records::open(path, layout.delimiter)?.next(false)?.is_some_and(|first| first.len() == 1);
    let mut records = Records::open(path, layout.delimiter)?;
    if layout.header {
        records.next(false)?;
    }
    for _ in 0..row {
        records.next(single)?;
    }
    Ok(records.next(single)?.map(|record| record.line))
}
