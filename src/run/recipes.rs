//! From a graph to the recipe, and so the fingerprint, of each of its tasks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::RunError;
use super::fetch::{Fetched, to_json};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::pipeline::graph::{Graph, Input, Source, SourceKind};
use crate::stages;
use crate::store;

/// A graph whose inputs were read once, so that every output's fingerprint is known.
pub struct Prepared {
    /// The graph.
    pub graph: Graph,
    /// The fingerprints of the graph's sources, in their order.
    pub sources: Vec<Fingerprint>,
    /// One recipe a task, in the graph's order.
    pub recipes: Vec<Recipe>,
    /// The text of the run's `sources.json`, if anything was fetched.
    pub(super) fetched: Option<String>,
}

/// Hashes the graph's sources and follows its edges.
///
/// # Errors
/// A source that cannot be read.
pub fn prepare(fetched: Fetched) -> Result<Prepared, RunError> {
    let Fetched { graph, sources, fingerprints } = fetched;
    let fetched = to_json(&sources);
    let sources = graph.sources.iter().map(|source| fingerprint(source, &fingerprints)).collect::<Result<Vec<_>, _>>()?;
    let mut recipes: Vec<Recipe> = Vec::with_capacity(graph.tasks.len());
    for task in &graph.tasks {
        let mut inputs: BTreeMap<String, Vec<Fingerprint>> = BTreeMap::new();
        for input in &task.inputs {
            let fingerprint = match input.input {
                Input::Source(index) => sources.get(index).cloned(),
                Input::Task(index) => recipes.get(index).map(Recipe::fingerprint),
            };
            // In SQL a table's name matters; elsewhere only the slot does, so that renaming a node changes nothing.
            let slot = if input.slot == "tables" { format!("table {}", input.name) } else { input.slot.to_string() };
            inputs.entry(slot).or_default().extend(fingerprint);
        }
        recipes.push(stages::recipe(&graph, task, inputs));
    }
    Ok(Prepared { graph, sources, recipes, fetched })
}

/// What a source holds and how it is read, without its path.
fn fingerprint(source: &Source, fetched: &BTreeMap<PathBuf, Fingerprint>) -> Result<Fingerprint, RunError> {
    Ok(match &source.kind {
        SourceKind::Table { path, format, delimiter, header, columns } => {
            let content = store::fingerprint_of(path)?;
            let reading = serde_json::json!([content, format, delimiter, header, columns]);
            Fingerprint::of(reading.to_string().as_bytes())
        }
        SourceKind::Model { path } => match fetched.get(path) {
            Some(fingerprint) => fingerprint.clone(),
            None => store::fingerprint_of(path)?,
        },
        SourceKind::Reward { sql } => Fingerprint::of(sql.as_bytes()),
    })
}
