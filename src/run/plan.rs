//! What a run would do, and why.

use super::{Prepared, RunError};
use crate::dag::fingerprint::Recipe;
use crate::store::{Run, State};

/// How far each task's output is, in the graph's order. Changes nothing.
///
/// # Errors
/// A manifest that cannot be read.
pub fn plan(run: &Run, prepared: &Prepared) -> Result<Vec<State>, RunError> {
    let states = prepared.graph.tasks.iter().zip(&prepared.recipes).map(|(task, recipe)| run.state(&task.place(), recipe));
    Ok(states.collect::<Result<_, _>>()?)
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
