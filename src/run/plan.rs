//! The plan: which outputs exist, which are to be made, and why.

use std::path::PathBuf;

use super::{Prepared, RunError};
use crate::dag::fingerprint::Recipe;
use crate::import;
use crate::pipeline::graph::{Source, SourceKind};
use crate::store::{Run, State};

/// How complete each task's output is, in the graph's order. Changes nothing.
///
/// # Errors
/// A manifest cannot be read.
pub fn plan(run: &Run, prepared: &Prepared) -> Result<Vec<State>, RunError> {
    let states = prepared.graph.tasks.iter().zip(&prepared.recipes).map(|(task, recipe)| run.state(&task.output_key(), recipe));
    Ok(states.collect::<Result<_, _>>()?)
}

/// An input table, and how complete its copy in the run folder is.
pub struct InputTable<'a> {
    /// The table.
    pub source: &'a Source,
    /// The recipe of the copy.
    pub recipe: Recipe,
    /// The state of the copy.
    pub state: State,
    files: &'a [PathBuf],
}

/// The input tables, in the graph's order. Changes nothing.
///
/// # Errors
/// As [`plan`].
pub fn input_tables<'a>(run: &Run, prepared: &'a Prepared) -> Result<Vec<InputTable<'a>>, RunError> {
    let mut tables = Vec::new();
    for (index, (source, hashes)) in prepared.graph.sources.iter().zip(&prepared.files).enumerate() {
        if let SourceKind::Table { paths, .. } = &source.kind {
            let recipe = import::recipe(&prepared.graph, index, hashes);
            let state = run.state(&source.output_key(), &recipe)?;
            tables.push(InputTable { source, recipe, state, files: paths });
        }
    }
    Ok(tables)
}

impl InputTable<'_> {
    /// The state as text. For a stale copy it names the changed files and settings.
    pub fn describe(&self) -> String {
        let State::Stale { old } = &self.state else { return describe(&self.state, &self.recipe) };
        let files = |recipe: &Recipe| recipe.inputs.get(import::FILES).cloned().unwrap_or_default();
        let now = files(&self.recipe);
        let before = files(old);
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

/// Whether a task with an output in this state must run.
pub fn must_run(state: &State) -> bool {
    !matches!(state, State::Complete | State::Cached)
}

/// The state as text. For a stale output it names the changes of its `recipe`.
pub fn describe(state: &State, recipe: &Recipe) -> String {
    match state {
        State::Complete => "done".to_string(),
        State::Cached => "cached".to_string(),
        State::Partial { done, of } => format!("partial: {done} of {of} parts"),
        State::Stale { old } => format!("stale: {}", recipe.differences_from(old).join("; ")),
        State::Absent => "to run".to_string(),
    }
}
