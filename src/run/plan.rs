//! What a run would do, and why.

use std::path::PathBuf;

use super::{Prepared, RunError};
use crate::dag::fingerprint::Recipe;
use crate::import;
use crate::pipeline::graph::{Source, SourceKind};
use crate::store::{Run, State};

/// How far each task's output is, in the graph's order. Changes nothing.
///
/// # Errors
/// A manifest that cannot be read.
pub fn plan(run: &Run, prepared: &Prepared) -> Result<Vec<State>, RunError> {
    let states = prepared.graph.tasks.iter().zip(&prepared.recipes).map(|(task, recipe)| run.state(&task.output_key(), recipe));
    Ok(states.collect::<Result<_, _>>()?)
}

/// An outside table and how far its copy in the run folder is.
pub struct Outside<'a> {
    /// The table.
    pub source: &'a Source,
    /// What the copy is made of.
    pub recipe: Recipe,
    /// How far it is.
    pub state: State,
    files: &'a [PathBuf],
}

/// The outside tables, in the graph's order. Changes nothing.
///
/// # Errors
/// As [`plan`].
pub fn outside<'a>(run: &Run, prepared: &'a Prepared) -> Result<Vec<Outside<'a>>, RunError> {
    let mut tables = Vec::new();
    for (index, (source, hashes)) in prepared.graph.sources.iter().zip(&prepared.files).enumerate() {
        let SourceKind::Table { paths, .. } = &source.kind else { continue };
        let recipe = import::recipe(&prepared.graph, index, hashes);
        let state = run.state(&source.output_key(), &recipe)?;
        tables.push(Outside { source, recipe, state, files: paths });
    }
    Ok(tables)
}

impl Outside<'_> {
    /// The state for people; of a copy made before something changed, which file or setting did.
    pub fn describe(&self) -> String {
        let State::Stale { old } = &self.state else { return describe(&self.state, &self.recipe) };
        let of = |recipe: &Recipe| recipe.inputs.get(import::FILES).cloned().unwrap_or_default();
        let (now, before) = (of(&self.recipe), of(old));
        let mut changes: Vec<String> = if now.len() == before.len() {
            let changed = self.files.iter().zip(now.iter().zip(&before)).filter(|(_, (now, before))| now != before);
            changed.map(|(path, _)| format!("{} changed", path.display())).collect()
        } else {
            vec![format!("{} files, were {}", now.len(), before.len())]
        };
        let same_files = Recipe { inputs: old.inputs.clone(), ..self.recipe.clone() };
        changes.extend(same_files.differences_from(old));
        format!("stale: {}", changes.join("; "))
    }
}

/// Whether a task whose output is in this state has to run.
pub fn runs(state: &State) -> bool {
    !matches!(state, State::Complete | State::Cached)
}

/// The state for people; of an output made before something changed, what changed in its `recipe`.
pub fn describe(state: &State, recipe: &Recipe) -> String {
    match state {
        State::Complete => "done".to_string(),
        State::Cached => "cached".to_string(),
        State::Partial { done, of } => format!("partial: {done} of {of} parts"),
        State::Stale { old } => format!("stale: {}", recipe.differences_from(old).join("; ")),
        State::Absent => "to run".to_string(),
    }
}
