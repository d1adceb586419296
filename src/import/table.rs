//! One external table: from its files to checked rows in our own columns.
//!
//! Knows which tasks read the table, not what they do with it. Knows no run folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

use super::dataset_format::{self, Normalized};
use super::error::ImportError;
use super::formats::{self, ColumnRules, ColumnType, InputFormat};
use super::left_out::LeftOut;
use super::preferences::Preferences;
use super::prompts::{Prompts, Repeats};
use super::row_errors::RowErrors;
use super::texts::{NoText, is_messages, text_columns, texts, with_texts};
use super::{scores, split};
use crate::pipeline::graph::{Graph, Input, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::input::{self as spec, DatasetFormat, Format};
use crate::pipeline::spec::operator::Operator;

/// An external table as the run sees it.
pub struct Imported {
    /// The rows. Prompts and preferences have `prompt_id` and our own columns.
    pub batches: Vec<RecordBatch>,
    /// The format of prompts and responses in the columns; `None` for a table of other rows.
    pub dataset_format: Option<DatasetFormat>,
    /// Rows that cannot be used, under `malformed: skip`.
    pub left_out: LeftOut,
    /// What the user should know about the table, in words.
    pub notes: Vec<String>,
}

impl Imported {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema())
    }
}

/// How the tasks of a pipeline use a table.
pub(super) struct TableUse {
    /// As prompts, with ids of their own.
    pub(super) prompts: bool,
    /// As demonstrations: the columns with the responses to imitate.
    pub(super) responses: BTreeSet<String>,
    /// As pairs of a chosen and a rejected response.
    pub(super) preferences: bool,
    /// As pairs whose reward gap is needed.
    pub(super) gaps: bool,
    /// As demonstrations and nothing else.
    demonstrations: bool,
}

impl TableUse {
    /// The use of the source at `index`, by the slots of the tasks that read it.
    pub(super) fn from_graph(graph: &Graph, index: usize) -> Self {
        let bindings = || graph.tasks.iter().flat_map(|task| &task.inputs).filter(|binding| binding.input == Input::Source(index));
        let any = |slots: &[Slot]| bindings().any(|binding| slots.contains(&binding.slot));
        let response = |task: &Task| match &task.operator {
            Operator::Sft(settings) if task.input(Slot::Demonstrations) == Some(Input::Source(index)) => Some(settings.response.clone()),
            _ => None,
        };
        let preferences = any(&[Slot::Preferences, Slot::HeldOut]);
        let needs_gaps = |task: &Task| {
            task.input(Slot::Preferences) == Some(Input::Source(index))
                && matches!(&task.operator, Operator::RewardModel(settings) if settings.margin)
        };
        Self {
            prompts: any(&[Slot::Prompts, Slot::Demonstrations]),
            responses: graph.tasks.iter().filter_map(response).collect(),
            demonstrations: any(&[Slot::Demonstrations]) && !any(&[Slot::Prompts]) && !preferences,
            preferences,
            gaps: graph.tasks.iter().any(needs_gaps),
        }
    }
}

/// The rows of the source at `index`, read from its files. A table for queries alone keeps its
/// columns, unless its dataset format is given.
///
/// # Errors
/// A file is not of its format; the columns fit no dataset format, or several; a row is not of the
/// dataset format, or breaks the rules of its use (unless `malformed` is `skip`). The error has
/// file and line, or row (from 0) if the format has no lines.
pub fn import(graph: &Graph, index: usize) -> Result<Imported, ImportError> {
    let Some(source) = graph.sources.get(index) else { return Err(ImportError::Internal(format!("input {index} does not exist"))) };
    let name = source.name.as_str();
    let SourceKind::Table { paths, dataset_format, columns, map, malformed, split, max_bytes, .. } = &source.kind else {
        return Err(ImportError::Internal(format!("{name} is not a table")));
    };
    let table_use = TableUse::from_graph(graph, index);
    let format = input_format(name, &source.kind)?;
    let of_table = |problem: String| ImportError::Input(format!("table {name}: {problem}"));
    let is_converted = table_use.prompts || table_use.preferences || *dataset_format != DatasetFormat::Auto;
    let rules = ColumnRules {
        given: columns.0.iter().map(|(name, kind)| (name.clone(), column_type(*kind))).collect(),
        texts: text_columns(map),
        messages: if is_converted { dataset_format::message_columns(*dataset_format, map) } else { BTreeSet::new() },
    };
    let formats::Rows { files, mut notes } = formats::read_inputs(&format, &rules, paths, *max_bytes)?;
    let rows = FileRows::new(&format, paths, &files);
    let renamed = files.into_iter().flatten().map(|batch| dataset_format::rename(&batch, map));
    let mut batches = without_empty(renamed.collect::<Result<Vec<_>, _>>().map_err(of_table)?);
    if !table_use.prompts && !table_use.preferences {
        if split.is_some() {
            return Err(of_table(
                "split: expected a table that a node reads as prompts or preferences, found one for queries only".to_string(),
            ));
        }
        if *dataset_format == DatasetFormat::Auto {
            return Ok(Imported { batches, dataset_format: None, left_out: LeftOut::default(), notes });
        }
    }
    // The text of a row's error without a problem is its location.
    let location = |row: usize| rows.error(row, format!("table {name}, row {row}")).to_string();
    let mut errors = RowErrors::new(*malformed, &location);
    let all = batches.iter().map(RecordBatch::num_rows).sum();
    changed(&mut errors, &mut batches, of_table, &|batch| dataset_format::with_conversations(*dataset_format, batch))?;
    if table_use.demonstrations {
        batches = batches.iter().map(dataset_format::text_rows).collect::<Result<_, _>>().map_err(of_table)?;
    }
    let dataset_format = dataset_format::detect(*dataset_format, &batches).map_err(of_table)?;
    changed(&mut errors, &mut batches, of_table, &|batch| converted(batch, dataset_format, &table_use))?;
    let count = changed(&mut errors, &mut batches, of_table, &|batch| dataset_format::normalize(dataset_format, batch))?;
    batches = dataset_format::alike(batches).map_err(of_table)?;
    check_responses(&mut errors, &table_use.responses, &batches)?;
    if table_use.preferences {
        Preferences::from_located_batches(&mut errors, name, &batches, table_use.gaps)?;
    }
    batches = without_skipped(&mut errors, batches, count)?;
    if table_use.prompts {
        let prompts = Prompts::from_located_batches(&mut errors, name, Repeats::Number, batches)?;
        if prompts.repeated > 0 {
            notes.push(format!("{} rows have the prompt of an earlier row; their ids end with #2 and so on", prompts.repeated));
        }
        batches = prompts.batches;
    }
    if let Some(split) = split {
        batches = split::part(name, *split, batches)?;
    }
    if let (true, Some(first)) = (table_use.preferences, batches.first()) {
        notes.extend(scores::unused(&first.schema()));
    }
    notes.extend(batches.first().into_iter().flat_map(|first| unread(dataset_format, &table_use, first)));
    let left_out = errors.into_left_out();
    notes.extend(left_out.text(all));
    Ok(Imported { batches: without_empty(batches), dataset_format: Some(dataset_format), left_out, notes })
}

/// Notes on columns that other dataset formats read as parts of the prompt or of the training.
fn unread(dataset_format: DatasetFormat, table_use: &TableUse, batch: &RecordBatch) -> Vec<String> {
    let of_prompts: &[&str] = match dataset_format {
        DatasetFormat::Alpaca => &[],
        DatasetFormat::Sharegpt | DatasetFormat::Orca => &["input", "context", "history"],
        _ => &["system", "input", "context", "history"],
    };
    let of_training: &[&str] = if table_use.demonstrations { &["weight", "train"] } else { &[] };
    let is_there = |name: &&&str| batch.column_by_name(name).is_some_and(|column| column.logical_null_count() < column.len());
    let note = |name: &&str| format!("the column {name} is not read in the format {}", dataset_format.name());
    of_prompts.iter().chain(of_training).filter(is_there).map(note).collect()
}

/// The columns that a dataset format reads as text. Lists and structs of messages are read as such.
fn texts_of(dataset_format: DatasetFormat, batch: &RecordBatch) -> Vec<&'static str> {
    let own: &[&str] = match dataset_format {
        DatasetFormat::Alpaca => &["instruction", "input", "output", "system"],
        DatasetFormat::Sharegpt => &["system"],
        DatasetFormat::Orca => &["system", "question"],
        DatasetFormat::Trl => &["prompt", "completion"],
        _ => &["prompt"],
    };
    let has_messages = |name: &str| batch.column_by_name(name).is_some_and(|array| is_messages(array.data_type()));
    own.iter().chain(&["chosen", "rejected"]).copied().filter(|name| !has_messages(name)).collect()
}

/// The batch with texts where it is read as text, without the rows whose values are no text.
fn converted(batch: &RecordBatch, dataset_format: DatasetFormat, table_use: &TableUse) -> Result<Normalized, String> {
    let (batch, mut wrong) = with_texts(batch, &texts_of(dataset_format, batch)).map_err(|error| error.to_string())?;
    wrong.extend(further_texts(table_use, &batch));
    let malformed: BTreeMap<usize, String> = wrong.into_iter().rev().map(|wrong| (wrong.row, wrong.problem)).collect();
    let batch = dataset_format::without_rows(&batch, malformed.keys().copied()).map_err(|error| error.to_string())?;
    Ok(Normalized { batch, malformed: malformed.into_iter().collect() })
}

/// The values that are no text in further columns that nodes read as text: responses to imitate,
/// reference answers.
fn further_texts(table_use: &TableUse, batch: &RecordBatch) -> Vec<NoText> {
    let answer = table_use.prompts.then_some("reference_answer");
    let columns = table_use.responses.iter().map(String::as_str).chain(answer);
    columns
        .filter_map(|name| batch.schema_ref().column_with_name(name))
        .flat_map(|(index, field)| texts(field, batch.column(index)).wrong)
        .collect()
}

/// Checks for a response in every demonstration. Missing columns are reported with the nodes that
/// need them.
fn check_responses(errors: &mut RowErrors, responses: &BTreeSet<String>, batches: &[RecordBatch]) -> Result<(), ImportError> {
    for name in responses {
        let mut before = 0;
        for batch in batches {
            if let Some(nulls) = batch.column_by_name(name).and_then(|column| column.logical_nulls()) {
                let has_messages = |row: usize| batch.column_by_name("messages").is_some_and(|messages| messages.is_valid(row));
                for row in (0..batch.num_rows()).filter(|row| nulls.is_null(*row)) {
                    let conversation = if has_messages(row) { ", or a conversation that ends with the assistant" } else { "" };
                    errors.malformed(before + row, &format!("expected a {name}{conversation}, found null"))?;
                }
            }
            before += batch.num_rows();
        }
    }
    Ok(())
}

/// Changes every batch. Notes the malformed rows, which are gone, and returns the number of the
/// others.
fn changed(
    errors: &mut RowErrors,
    batches: &mut [RecordBatch],
    of_table: impl Fn(String) -> ImportError,
    change: &dyn Fn(&RecordBatch) -> Result<Normalized, String>,
) -> Result<usize, ImportError> {
    let mut before = 0;
    for batch in batches {
        let normalized = change(batch).map_err(&of_table)?;
        for (row, problem) in normalized.malformed {
            errors.malformed(before + row, &problem)?;
        }
        before += batch.num_rows();
        *batch = normalized.batch;
    }
    Ok(before - errors.take_skipped(before).len())
}

/// The batches, of `count` rows, without the rows left out.
fn without_skipped(errors: &mut RowErrors, batches: Vec<RecordBatch>, count: usize) -> Result<Vec<RecordBatch>, ImportError> {
    let skipped = errors.take_skipped(count);
    let mut before = 0;
    let mut kept = Vec::with_capacity(batches.len());
    for batch in batches {
        let rows = skipped.range(before..before + batch.num_rows()).map(|row| row - before);
        kept.push(dataset_format::without_rows(&batch, rows)?);
        before += batch.num_rows();
    }
    Ok(kept)
}

/// The batches with rows; one batch without rows if there are no others, because it has the
/// columns.
fn without_empty(mut batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    if batches.iter().any(|batch| batch.num_rows() > 0) {
        batches.retain(|batch| batch.num_rows() > 0);
    } else {
        batches.truncate(1);
    }
    batches
}

/// The rows of a table's files: from the table's row to the file's row.
struct FileRows<'a> {
    format: &'a InputFormat,
    /// The files, each with its first row in the table.
    files: Vec<(&'a Path, usize)>,
}

impl<'a> FileRows<'a> {
    fn new(format: &'a InputFormat, paths: &'a [PathBuf], batches: &[Vec<RecordBatch>]) -> Self {
        let mut files = Vec::with_capacity(paths.len());
        let mut next = 0;
        for (path, batches) in paths.iter().zip(batches) {
            files.push((path.as_path(), next));
            next += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        Self { format, files }
    }

    /// The error of a row of the table, with the file and its line or row.
    fn error(&self, row: usize, problem: String) -> ImportError {
        match self.files.iter().rfind(|(_, start)| *start <= row) {
            Some((path, start)) => formats::row_error(self.format, path, row - start, problem),
            None => ImportError::Internal(format!("row {row} of a table without files: {problem}")),
        }
    }
}

/// The format of a table's files, as the pipeline file gives it.
fn input_format(name: &str, kind: &SourceKind) -> Result<InputFormat, ImportError> {
    let SourceKind::Table { format, delimiter, header, .. } = kind else {
        return Err(ImportError::Internal(format!("{name} is not a table")));
    };
    Ok(match format {
        Format::Parquet => InputFormat::Parquet,
        Format::Jsonl => InputFormat::JsonLines,
        Format::Json => InputFormat::Json,
        Format::Arrow => InputFormat::Arrow,
        Format::Csv => {
            let delimiter = delimiter.unwrap_or(',');
            InputFormat::Csv {
                delimiter: u8::try_from(delimiter)
                    .map_err(|_| ImportError::Input(format!("table {name}: expected a delimiter of one byte, found {delimiter:?}")))?,
                header: header.unwrap_or(true),
            }
        }
    })
}

fn column_type(kind: spec::ColumnType) -> ColumnType {
    match kind {
        spec::ColumnType::Text => ColumnType::Text,
        spec::ColumnType::Int64 => ColumnType::Integer,
        spec::ColumnType::Float64 => ColumnType::Number,
        spec::ColumnType::Boolean => ColumnType::Boolean,
        spec::ColumnType::Json => ColumnType::Json,
        spec::ColumnType::Skip => ColumnType::Skip,
    }
}
