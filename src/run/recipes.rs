//! The recipe, and so the fingerprint, of each task of a graph.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::RunError;
use super::fetch::{Fetched, to_json};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::model;
use crate::operators::support::program::files as program_files;
use crate::operators::{self, OperatorError};
use crate::pipeline::graph::{Graph, Input, Reward, Source, SourceKind};
use crate::pipeline::slot::Slot;
use crate::store;

/// The fingerprints of fetched folders and files.
type FetchedPaths = BTreeMap<PathBuf, Fingerprint>;

/// A graph with hashed inputs, so the fingerprint of every output is known.
pub struct Prepared {
    /// The graph.
    pub graph: Graph,
    /// The fingerprints of the files of each source, in the graph's order; empty for sources other
    /// than tables.
    pub files: Vec<Vec<Fingerprint>>,
    /// The recipe of each task, in the graph's order.
    pub recipes: Vec<Recipe>,
    /// The text of the run's `sources.json`; `None` if the run fetched nothing.
    pub(super) fetched: Option<String>,
}

/// The fingerprints of hashes files and folders. Several runs share them, so each file is hashed
/// once.
#[derive(Default)]
pub struct FileHashes(BTreeMap<PathBuf, Fingerprint>);

impl FileHashes {
    fn fingerprint(&mut self, path: &Path) -> Result<Fingerprint, RunError> {
        if let Some(found) = self.0.get(path) {
            return Ok(found.clone());
        }
        let found = store::fingerprint_of(path)?;
        self.0.insert(path.to_path_buf(), found.clone());
        Ok(found)
    }
}

/// Hashes the graph's sources, except those in `hashes`, and derives the recipe of each task from
/// its inputs.
///
/// # Errors
/// A source cannot be read.
pub fn prepare(fetched: Fetched, hashes: &mut FileHashes) -> Result<Prepared, RunError> {
    let Fetched { graph, sources, fingerprints } = fetched;
    let fetched = to_json(&sources)?;
    let files = graph.sources.iter().map(|source| file_fingerprints(source, &fingerprints, hashes)).collect::<Result<Vec<_>, _>>()?;
    let both = graph.sources.iter().zip(&files);
    let sources = both.map(|(source, files)| fingerprint(source, files, &fingerprints, hashes)).collect::<Result<Vec<_>, _>>()?;
    let mut recipes: Vec<Recipe> = Vec::with_capacity(graph.tasks.len());
    for task in &graph.tasks {
        let mut inputs: BTreeMap<String, Vec<Fingerprint>> = BTreeMap::new();
        for input in &task.inputs {
            let fingerprint = match input.input {
                Input::Source(index) => sources.get(index).cloned(),
                Input::Task(index) => recipes.get(index).map(Recipe::fingerprint),
            };
            let fingerprint = fingerprint.ok_or_else(|| RunError::Internal {
                place: "run::prepare",
                problem: format!("{} needs {}, a later or unknown node", task.label(), input.name),
            })?;
            // SQL and commands see the names of their inputs. For other operators only the slot
            // matters: a renamed node changes nothing.
            let slot = match input.slot {
                Slot::Tables => format!("table {}", input.name),
                Slot::Inputs => format!("input {}", input.name),
                slot => slot.to_string(),
            };
            inputs.entry(slot).or_default().push(fingerprint);
        }
        if let Some(program) = task.operator.program() {
            for (name, path) in &program.place.files {
                let fingerprint = program_files::fingerprint(name, &hashes.fingerprint(path)?);
                inputs.entry(program_files::FILES.to_string()).or_default().push(fingerprint);
            }
        }
        recipes.push(operators::recipe(&graph, task, inputs));
    }
    Ok(Prepared { graph, files, recipes, fetched })
}

/// The fingerprints of a table's files, in order; empty for other sources.
fn file_fingerprints(source: &Source, fetched: &FetchedPaths, hashes: &mut FileHashes) -> Result<Vec<Fingerprint>, RunError> {
    match &source.kind {
        SourceKind::Table { paths, .. } => {
            paths.iter().map(|path| fetched.get(path).cloned().map_or_else(|| hashes.fingerprint(path), Ok)).collect()
        }
        _ => Ok(Vec::new()),
    }
}

/// The fingerprint of a source: its contents and its import settings, without its path.
fn fingerprint(source: &Source, files: &[Fingerprint], fetched: &FetchedPaths, hashes: &mut FileHashes) -> Result<Fingerprint, RunError> {
    Ok(match &source.kind {
        SourceKind::Table { format, delimiter, header, columns, dataset_format, map, malformed, split, .. } => {
            let reading = serde_json::json!([files, format, delimiter, header, columns, dataset_format, map, malformed, split]);
            Fingerprint::from_contents(reading.to_string().as_bytes())
        }
        SourceKind::Model { path } => model_fingerprint(path, fetched, hashes)?,
        SourceKind::Reward { reward: Reward::Sql(sql) } => Fingerprint::from_contents(sql.as_bytes()),
        SourceKind::Reward { reward } => {
            let models = reward.leaves().into_iter().filter_map(|leaf| match leaf {
                Reward::Model(path) => Some(model_fingerprint(path, fetched, hashes)),
                _ => None,
            });
            let models = models.collect::<Result<Vec<_>, _>>()?;
            let processes = reward.leaves().into_iter().filter_map(|leaf| match leaf {
                Reward::Process(process) => Some(operators::process_identity(process)),
                _ => None,
            });
            let at = |error: OperatorError| OperatorError::Input(format!("line {}: {}: {error}", source.line, source.name));
            let processes = processes.collect::<Result<Vec<_>, _>>().map_err(at)?;
            // A reward without processes keeps the fingerprint that it had before there were any.
            let mut contents = serde_json::json!([reward.settings(), models]);
            if let Some(list) = contents.as_array_mut().filter(|_| !processes.is_empty()) {
                list.push(serde_json::json!(processes));
            }
            Fingerprint::from_contents(contents.to_string().as_bytes())
        }
    })
}

/// The fingerprint of a model directory; for an adapter also of its base model.
fn model_fingerprint(path: &Path, fetched: &FetchedPaths, hashes: &mut FileHashes) -> Result<Fingerprint, RunError> {
    let own = fetched.get(path).cloned().map_or_else(|| hashes.fingerprint(path), Ok)?;
    Ok(match model::base_of(path).map_err(OperatorError::from)? {
        Some(base) => {
            let base = fetched.get(&base).cloned().map_or_else(|| hashes.fingerprint(&base), Ok)?;
            Fingerprint::from_contents(serde_json::json!([own, base]).to_string().as_bytes())
        }
        None => own,
    })
}
