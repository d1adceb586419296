//! Fetches models of the hub before the other checks, and pins their commits for resumed runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::RunError;
use crate::dag::fingerprint::Fingerprint;
use crate::operators::{OperatorError, Progress};
use crate::pipeline::graph::Graph;
use crate::remote::{Hub, HubModel, Pinned, RemoteError};
use crate::store::{self, ModelFile, Run};

/// Bytes in a unit of progress.
const MEGABYTE: u64 = 1_000_000;

/// A graph with local folders for all models.
pub struct Fetched {
    /// The graph.
    pub graph: Graph,
    /// The fetched models, by their names in the pipeline file (`hf://org/name@revision`).
    pub(super) sources: BTreeMap<String, Source>,
    /// The fingerprints of these models, by folder. They cover only the models' own files: other
    /// programs may add files to the folders.
    pub(super) fingerprints: BTreeMap<PathBuf, Fingerprint>,
}

/// A model of the hub at the start of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    commit: String,
    files: Vec<ModelFile>,
}

/// Fetches the models named `hf://…`: at the commits of the run's start, else at the current
/// commits of their revisions.
///
/// # Errors
/// A model is not available, or a file differs from the run's start.
pub fn fetch(mut graph: Graph, run: &Run, stopped: &(dyn Fn() -> bool + Sync), progress: &dyn Progress) -> Result<Fetched, RunError> {
    let mut sources = BTreeMap::new();
    let mut fingerprints = BTreeMap::new();
    let remote = |error: RemoteError| RunError::Operator(OperatorError::from(error));
    let mut hub = None;
    for (name, path) in graph.models_mut() {
        let written = path.display().to_string();
        let Some(of_hub) = written.strip_prefix("hf://") else { continue };
        let (repo, revision) = of_hub
            .split_once('@')
            .ok_or_else(|| RunError::Internal { place: "run::fetch", problem: format!("{written} has no revision") })?;
        let model = HubModel { repo, revision };
        let hub = match &mut hub {
            Some(hub) => hub,
            slot => slot.insert(Hub::from_env().map_err(remote)?),
        };
        let began = pinned_sources(run)?.remove(&written);
        if let Some(began) = &began
            && let Some(now) = hub.commit(model, stopped).filter(|now| *now != began.commit)
        {
            let began = &began.commit;
            progress.warned(name, &format!("{written} is at commit {now} now; this run goes on with {began}, which it began with"));
        }
        let pinned = began.as_ref().map(|began| Pinned {
            commit: began.commit.clone(),
            files: began.files.iter().map(|file| (file.file.clone(), file.bytes)).collect(),
        });
        let start = Instant::now();
        let mut is_shown = false;
        let snapshot = hub.fetch(model, pinned.as_ref(), stopped, &mut |done, total| {
            if !std::mem::replace(&mut is_shown, true) {
                progress.started(name, "MB", 0, total / MEGABYTE);
            }
            progress.advanced(name, done / MEGABYTE, 0);
        });
        let snapshot = snapshot.map_err(remote)?;
        let files = store::hash_files(&snapshot.folder, &snapshot.files)?;
        if is_shown {
            let summary = format!("{written}, commit {}, {} files", snapshot.commit, files.len());
            progress.finished(name, &summary, start.elapsed().as_secs_f64());
        }
        if let Some(began) = &began {
            check_files(&written, &began.files, &files).map_err(|problem| RunError::Operator(OperatorError::Input(problem)))?;
        }
        fingerprints.insert(snapshot.folder.clone(), store::fingerprint_of_files(&files));
        sources.insert(written, Source { commit: snapshot.commit, files });
        *path = snapshot.folder;
    }
    Ok(Fetched { graph, sources, fingerprints })
}

/// The fetched models at the start of the run, from `sources.json`.
fn pinned_sources(run: &Run) -> Result<BTreeMap<String, Source>, RunError> {
    let text = run.read_sources()?.unwrap_or_else(|| "{}".to_string());
    let failed =
        |error| OperatorError::Input(format!("{}: sources.json: expected the models that the run began with, found {error}", run.name()));
    Ok(serde_json::from_str(&text).map_err(failed)?)
}

/// Compares a model's files with those at the start of the run.
fn check_files(model: &str, began: &[ModelFile], found: &[ModelFile]) -> Result<(), String> {
    for file in began {
        match found.iter().find(|other| other.file == file.file) {
            Some(other) if other == file => {}
            found => {
                let found =
                    found.map_or("none".to_string(), |other| format!("one with blake3 {}", other.blake3.get(..12).unwrap_or_default()));
                let name = &file.file;
                return Err(format!(
                    "{model}: expected the {name} that this run began with (blake3 {}), found {found}; remove it from the cache to fetch it again",
                    file.blake3.get(..12).unwrap_or_default()
                ));
            }
        }
    }
    Ok(())
}

/// The text of `sources.json`; `None` if nothing was fetched.
pub(super) fn to_json(sources: &BTreeMap<String, Source>) -> Result<Option<String>, RunError> {
    if sources.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string_pretty(sources);
    let text = text.map_err(|error| RunError::Internal { place: "run::fetch::to_json", problem: error.to_string() })?;
    Ok(Some(format!("{text}\n")))
}
