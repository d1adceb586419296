//! From a graph to the recipe, and so the fingerprint, of each of its tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::RunError;
use super::fetch::{Fetched, to_json};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::model;
use crate::operators::{self, OperatorError};
use crate::pipeline::graph::{Graph, Input, Reward, RewardSource, Source, SourceKind};
use crate::store;

/// The fingerprints of folders that were fetched.
type FetchedFolders = BTreeMap<PathBuf, Fingerprint>;

/// A graph whose inputs were read once, so that every output's fingerprint is known.
pub struct Prepared {
    /// The graph.
    pub graph: Graph,
    /// The fingerprints of the files of each source that is a table, in the graph's order.
    pub files: Vec<Vec<Fingerprint>>,
    /// One recipe a task, in the graph's order.
    pub recipes: Vec<Recipe>,
    /// The text of the run's `sources.json`, if anything was fetched.
    pub(super) fetched: Option<String>,
}

/// The fingerprints of files and folders that were read, so that several runs read each of them once.
#[derive(Default)]
pub struct Hashed(BTreeMap<PathBuf, Fingerprint>);

impl Hashed {
    fn of(&mut self, path: &Path) -> Result<Fingerprint, RunError> {
        if let Some(found) = self.0.get(path) {
            return Ok(found.clone());
        }
        let found = store::fingerprint_of(path)?;
        self.0.insert(path.to_path_buf(), found.clone());
        Ok(found)
    }
}

/// Hashes the graph's sources, unless they were `hashed` before, and follows its edges.
///
/// # Errors
/// A source that cannot be read.
pub fn prepare(fetched: Fetched, hashed: &mut Hashed) -> Result<Prepared, RunError> {
    let Fetched { graph, sources, fingerprints } = fetched;
    let fetched = to_json(&sources);
    let files = graph.sources.iter().map(|source| files(source, hashed)).collect::<Result<Vec<_>, _>>()?;
    let both = graph.sources.iter().zip(&files);
    let sources = both.map(|(source, files)| fingerprint(source, files, &fingerprints, hashed)).collect::<Result<Vec<_>, _>>()?;
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
        recipes.push(operators::recipe(&graph, task, inputs));
    }
    Ok(Prepared { graph, files, recipes, fetched })
}

/// The fingerprints of a table's files, in order; none for other sources.
fn files(source: &Source, hashed: &mut Hashed) -> Result<Vec<Fingerprint>, RunError> {
    match &source.kind {
        SourceKind::Table { paths, .. } => paths.iter().map(|path| hashed.of(path)).collect(),
        _ => Ok(Vec::new()),
    }
}

/// What a source holds and how it is read, without its path.
fn fingerprint(source: &Source, files: &[Fingerprint], fetched: &FetchedFolders, hashed: &mut Hashed) -> Result<Fingerprint, RunError> {
    Ok(match &source.kind {
        SourceKind::Table { format, delimiter, header, columns, dataset_format, map, .. } => {
            let reading = serde_json::json!([files, format, delimiter, header, columns, dataset_format, map]);
            Fingerprint::of(reading.to_string().as_bytes())
        }
        SourceKind::Model { path } => model_fingerprint(path, fetched, hashed)?,
        SourceKind::Reward { reward: Reward::One(RewardSource::Sql(sql)) } => Fingerprint::of(sql.as_bytes()),
        SourceKind::Reward { reward } => {
            let models = reward.sources().filter_map(|source| match source {
                RewardSource::Model(path) => Some(model_fingerprint(path, fetched, hashed)),
                _ => None,
            });
            let models = models.collect::<Result<Vec<_>, _>>()?;
            Fingerprint::of(serde_json::json!([reward.settings(), models]).to_string().as_bytes())
        }
    })
}

/// The contents of a model directory; for an adapter those of its base too.
fn model_fingerprint(path: &Path, fetched: &FetchedFolders, hashed: &mut Hashed) -> Result<Fingerprint, RunError> {
    let own = fetched.get(path).cloned().map_or_else(|| hashed.of(path), Ok)?;
    Ok(match model::base_of(path).map_err(OperatorError::from)? {
        Some(base) => Fingerprint::of(serde_json::json!([own, hashed.of(&base)?]).to_string().as_bytes()),
        None => own,
    })
}
