//! Input tables: read once from where the user has them, and kept in the run folder as the run saw them.
//!
//! So SQL over a run needs nothing from outside it, and a file that changes under a run changes nothing.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use super::{Prompts, StageError};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::pipeline::graph::{Graph, Input, Source, SourceKind};
use crate::store::{self, Place, PlaceKind, RunLock, State};

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
        SourceKind::Table(file) => Ok(store::read_input(file)?),
        _ => Err(StageError::Input(format!("{} is not a table", source.name))),
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
