//! Input tables: read once from where the user has them, and kept in the run folder as the run saw them.
//!
//! So SQL over a run needs nothing from outside it, and a file that changes under a run changes nothing.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use super::{Prompts, StageError};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::pipeline::graph::{Graph, Input, Source, SourceKind};
use crate::pipeline::spec::input::{self as spec, Format};
use crate::store::{self, ColumnType, InputFormat, Place, PlaceKind, RunLock, State};

impl Source {
    /// Where an input table lies in a run folder.
    pub fn place(&self) -> Place {
        Place { kind: PlaceKind::Table, name: self.name.clone(), iteration: None }
    }
}

/// The rows of an outside table, as they are.
///
/// # Errors
/// A file that cannot be read as its format.
pub fn read(source: &Source) -> Result<Vec<RecordBatch>, StageError> {
    match &source.kind {
        SourceKind::Table { path, format, delimiter, header, columns } => {
            let format = match format {
                Format::Parquet => InputFormat::Parquet,
                Format::Jsonl => InputFormat::JsonLines,
                Format::Csv => InputFormat::Csv {
                    delimiter: delimiter.and_then(|delimiter| u8::try_from(delimiter).ok()).unwrap_or(b','),
                    header: header.unwrap_or(true),
                    columns: columns.0.iter().map(|(name, kind)| (name.clone(), column_type(*kind))).collect(),
                },
            };
            Ok(store::read_input(&format, path)?)
        }
        _ => Err(StageError::Input(format!("{} is not a table", source.name))),
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

/// Whether some task asks the source's rows as prompts, which then need ids.
fn is_prompts(graph: &Graph, index: usize) -> bool {
    let slots = graph.tasks.iter().flat_map(|task| &task.inputs);
    slots.into_iter().any(|slot| slot.input == Input::Source(index) && matches!(slot.slot, "prompts" | "demonstrations"))
}

/// Brings the graph's input tables into the run folder, where they are not yet there; `fingerprints` are those of its sources.
///
/// # Errors
/// A file that cannot be read, or prompts that break their rules.
pub fn bring_in(run: &RunLock, graph: &Graph, fingerprints: &[Fingerprint]) -> Result<(), StageError> {
    for (index, (source, fingerprint)) in graph.sources.iter().zip(fingerprints).enumerate() {
        if !matches!(source.kind, SourceKind::Table { .. }) {
            continue;
        }
        let prompts = is_prompts(graph, index);
        let recipe = Recipe {
            operator: "input".to_string(),
            version: 1,
            seed: None,
            settings: BTreeMap::from([("prompts".to_string(), prompts.into())]),
            inputs: BTreeMap::from([("file".to_string(), vec![fingerprint.clone()])]),
        };
        match run.state(&source.place(), &recipe)? {
            State::Complete => continue,
            State::Cached if run.adopt(&source.place(), &recipe.fingerprint())?.0 => continue,
            _ => {}
        }
        let batches = read(source)?;
        let batches = if prompts { Prompts::read(&source.name, batches)?.batches } else { batches };
        let Some(first) = batches.first() else { continue };
        let whole = arrow::compute::concat_batches(&first.schema(), &batches)?;
        let mut writer = run.write_table(&source.place(), &recipe, None, whole.num_rows(), whole.num_rows().max(1))?;
        for part in writer.missing() {
            writer.commit(part, &whole)?;
        }
        writer.finish(BTreeMap::from([("rows".to_string(), whole.num_rows() as i64)]))?;
    }
    Ok(())
}
