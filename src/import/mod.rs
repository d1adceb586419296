//! Input tables: read once from where the user has them, and kept in the run folder as the run saw them.
//!
//! So SQL over a run needs nothing from outside it, and a file that changes under a run changes nothing.

mod conversations;
mod dataset_format;
mod error;
mod formats;
mod preferences;
pub(crate) mod prompts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use serde_json::json;

use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::pipeline::graph::{Graph, Input, Source, SourceKind};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::input::{self as spec, DatasetFormat, Format};
use crate::store::{OutputKey, OutputKind, RunLock, State};

pub use conversations::Conversations;
pub use error::ImportError;
pub use formats::{ColumnType, InputFormat, read_input, read_inputs, wrong_row};
pub use preferences::{Preference, Preferences};
pub use prompts::{Prompt, Prompts};

impl Source {
    /// Where an input table lies in a run folder.
    pub fn output_key(&self) -> OutputKey {
        OutputKey { kind: OutputKind::Table, name: self.name.clone(), iteration: None }
    }
}

/// An outside table as the run sees it.
pub struct Imported {
    /// The rows: those of prompts and preferences with `prompt_id`, and in our own columns.
    pub batches: Vec<RecordBatch>,
    /// How prompts and responses lay in the columns; none for a table that is neither.
    pub dataset_format: Option<DatasetFormat>,
}

impl Imported {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema())
    }
}

/// What tasks read a source as.
#[derive(Clone, Copy)]
struct Uses {
    /// As prompts, which need ids of their own.
    prompts: bool,
    /// As pairs of a chosen and a rejected response.
    preferences: bool,
}

impl Uses {
    fn of(graph: &Graph, index: usize) -> Self {
        let bindings = || graph.tasks.iter().flat_map(|task| &task.inputs).filter(|binding| binding.input == Input::Source(index));
        let any = |slots: &[Slot]| bindings().any(|binding| slots.contains(&binding.slot));
        Self { prompts: any(&[Slot::Prompts, Slot::Demonstrations]), preferences: any(&[Slot::Preferences, Slot::HeldOut]) }
    }
}

/// The rows of the source at `index`, read from its files; a table that only queries read keeps its columns unless its dataset format is given.
///
/// # Errors
/// A file that cannot be read as its format, columns of no dataset format or of several, a row that is not of the dataset format or breaks the rules of
/// what it is read as; with file and line, or row (from 0) where the format has no lines.
pub fn import(graph: &Graph, index: usize) -> Result<Imported, ImportError> {
    let Some(source) = graph.sources.get(index) else { return Err(ImportError::Input("an input does not exist".to_string())) };
    let SourceKind::Table { paths, dataset_format, map, max_bytes, .. } = &source.kind else {
        return Err(ImportError::Input(format!("{} is not a table", source.name)));
    };
    let (uses, name) = (Uses::of(graph, index), source.name.as_str());
    let format = format_of(&source.kind);
    let of_table = |problem: String| ImportError::Input(format!("table {name}: {problem}"));
    // Whatever cannot be read here is the user's file, not one of the run's.
    let files = read_inputs(&format, paths, *max_bytes).map_err(|error| ImportError::Input(error.to_string()))?;
    let starts: Vec<usize> = files
        .iter()
        .scan(0, |next, batches| {
            let start = *next;
            *next += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            Some(start)
        })
        .collect();
    // A row of the table as its file and what the format counts in it.
    let wrong = |row: usize, problem: String| {
        let file = starts.partition_point(|start| *start <= row).saturating_sub(1);
        let path = paths.get(file).cloned().unwrap_or_default();
        wrong_row(&format, &path, row - starts.get(file).copied().unwrap_or(0), problem).to_string()
    };
    let mut batches =
        files.into_iter().flatten().map(|batch| dataset_format::renamed(&batch, map)).collect::<Result<Vec<_>, _>>().map_err(of_table)?;
    batches.retain({
        // One batch without rows is enough to know the columns by.
        let filled = batches.iter().any(|batch| batch.num_rows() > 0);
        let mut first = true;
        move |batch| batch.num_rows() > 0 || (!filled && std::mem::take(&mut first))
    });
    if !uses.prompts && !uses.preferences && *dataset_format == DatasetFormat::Auto {
        return Ok(Imported { batches, dataset_format: None });
    }
    let Some(first) = batches.first() else { return Err(of_table("expected columns, found none".to_string())) };
    let dataset_format = dataset_format::detect(*dataset_format, first).map_err(of_table)?;
    let mut before = 0;
    for batch in &mut batches {
        *batch = dataset_format::normalised(dataset_format, batch).map_err(|error| match error.row {
            Some(row) => ImportError::Input(wrong(before + row, format!("table {name}: {}", error.problem))),
            None => of_table(error.problem),
        })?;
        before += batch.num_rows();
    }
    // Without a problem behind it, the text of a wrong row is its place.
    let place = |row: usize| wrong(row, format!("table {name}, row {row}"));
    if uses.preferences {
        Preferences::read_rows(&place, name, &batches)?;
    }
    if uses.prompts {
        batches = Prompts::read_rows(&place, name, batches)?.batches;
    }
    Ok(Imported { batches, dataset_format: Some(dataset_format) })
}

fn format_of(kind: &SourceKind) -> InputFormat {
    match kind {
        SourceKind::Table { format: Format::Jsonl, .. } => InputFormat::JsonLines,
        SourceKind::Table { format: Format::Json, .. } => InputFormat::Json,
        SourceKind::Table { format: Format::Arrow, .. } => InputFormat::Arrow,
        SourceKind::Table { format: Format::Csv, delimiter, header, columns, .. } => InputFormat::Csv {
            delimiter: delimiter.and_then(|delimiter| u8::try_from(delimiter).ok()).unwrap_or(b','),
            header: header.unwrap_or(true),
            columns: columns.0.iter().map(|(name, kind)| (name.clone(), column_type(*kind))).collect(),
        },
        _ => InputFormat::Parquet,
    }
}

fn column_type(kind: spec::ColumnType) -> ColumnType {
    match kind {
        spec::ColumnType::Text => ColumnType::Text,
        spec::ColumnType::Int64 => ColumnType::Integer,
        spec::ColumnType::Float64 => ColumnType::Number,
        spec::ColumnType::Boolean => ColumnType::Boolean,
    }
}

/// What the run folder's copy of the source at `index` is made of; `files` are the fingerprints of its files, in order.
pub fn recipe(graph: &Graph, index: usize, files: &[Fingerprint]) -> Recipe {
    let uses = Uses::of(graph, index);
    let mut settings = BTreeMap::from([("prompts".to_string(), json!(uses.prompts)), ("preferences".to_string(), json!(uses.preferences))]);
    if let Some(SourceKind::Table { format, delimiter, header, columns, dataset_format, map, .. }) =
        graph.sources.get(index).map(|source| &source.kind)
    {
        let written = [
            ("format", json!(format)),
            ("delimiter", json!(delimiter)),
            ("header", json!(header)),
            ("columns", json!(columns)),
            ("dataset_format", json!(dataset_format)),
            ("map", json!(map)),
        ];
        settings.extend(written.map(|(key, value)| (key.to_string(), value)));
    }
    let inputs = BTreeMap::from([(FILES.to_string(), files.to_vec())]);
    Recipe { operator: "input".to_string(), version: 2, seed: None, settings, inputs }
}

/// The slot of a source's files in its recipe.
pub const FILES: &str = "files";

/// Rows in one part of an input table in the run folder.
const PART_ROWS: usize = 1 << 16;

/// Brings the graph's input tables into the run folder, where they are not yet there; `files` are the fingerprints of each source's files.
///
/// # Errors
/// As [`import`].
pub fn bring_in(run: &RunLock, graph: &Graph, files: &[Vec<Fingerprint>]) -> Result<(), ImportError> {
    for (index, (source, files)) in graph.sources.iter().zip(files).enumerate() {
        if !matches!(source.kind, SourceKind::Table { .. }) {
            continue;
        }
        let recipe = recipe(graph, index, files);
        match run.state(&source.output_key(), &recipe)? {
            State::Complete => continue,
            State::Cached if run.cache().adopt(&source.output_key(), &recipe.fingerprint())?.0 => continue,
            _ => {}
        }
        let imported = import(graph, index)?;
        let total = imported.rows();
        let mut writer = run.write_table(&source.output_key(), &recipe, None, total, PART_ROWS)?;
        for part in writer.missing() {
            writer.commit(part, &slice(&imported, writer.rows_of(part))?)?;
        }
        let dataset_format = imported.dataset_format.map(|dataset_format| (format!("rows_as_{}", dataset_format.name()), total as i64));
        writer.finish([("rows".to_string(), total as i64)].into_iter().chain(dataset_format).collect())?;
    }
    Ok(())
}

/// These rows of a table as one batch.
fn slice(imported: &Imported, rows: Range<usize>) -> Result<RecordBatch, ImportError> {
    let (mut before, mut pieces) = (0, Vec::new());
    for batch in &imported.batches {
        let begin = rows.start.max(before);
        let end = rows.end.min(before + batch.num_rows());
        if begin < end {
            pieces.push(batch.slice(begin - before, end - begin));
        }
        before += batch.num_rows();
    }
    Ok(arrow::compute::concat_batches(&imported.schema(), &pieces)?)
}
