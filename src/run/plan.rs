//! What a run would do, and why: one step a task.

use std::fmt;

use super::{Prepared, RunError};
use crate::store::{Run, State};

/// What is to be done for each task of a graph, in its order.
pub struct Plan {
    /// One step a task.
    pub steps: Vec<Step>,
}

/// What is to be done for one task.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The output is in the run folder.
    Complete,
    /// The output is in the cache, made by another run or by an earlier version of this one.
    Cached,
    /// So many parts are there.
    Partial {
        /// Parts that are committed.
        done: u64,
        /// Parts in all.
        of: u64,
    },
    /// Another output is there, from before something changed.
    Stale {
        /// What changed.
        why: Vec<String>,
    },
    /// Nothing is there.
    Absent,
}

impl Step {
    /// Whether the task's stage has to run.
    pub fn runs(&self) -> bool {
        !matches!(self, Step::Complete | Step::Cached)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Complete => f.write_str("done"),
            Step::Cached => f.write_str("cached"),
            Step::Partial { done, of } => write!(f, "partial: {done} of {of} parts"),
            Step::Stale { why } => write!(f, "stale: {}", why.join("; ")),
            Step::Absent => f.write_str("to run"),
        }
    }
}

/// Looks at what is there; changes nothing.
///
/// # Errors
/// A manifest that cannot be read.
pub fn plan(run: &Run, prepared: &Prepared) -> Result<Plan, RunError> {
    let step = |(task, recipe): (&crate::pipeline::graph::Task, &crate::dag::fingerprint::Recipe)| -> Result<Step, RunError> {
        Ok(match run.state(&task.place(), recipe)? {
            State::Complete => Step::Complete,
            State::Cached => Step::Cached,
            State::Partial { done, of } => Step::Partial { done, of },
            State::Stale { old } => Step::Stale { why: recipe.differences_from(&old) },
            State::Absent => Step::Absent,
        })
    };
    let steps = prepared.graph.tasks.iter().zip(&prepared.recipes).map(step).collect::<Result<_, _>>()?;
    Ok(Plan { steps })
}
