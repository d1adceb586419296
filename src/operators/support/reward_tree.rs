//! The reward of a task with every name replaced by the reward behind it: a tree with queries,
//! models, servers and processes as its leaves.
//!
//! Follows names through the graph. Loads nothing and asks no server.

use super::OperatorError;
use crate::pipeline::graph::{Component, Graph, Input, Reward, SourceKind, Task};
use crate::pipeline::slot::Slot;

/// This module in internal errors.
const PLACE: &str = "operators::support::reward_tree";

/// The reward of a `score` task, without names.
///
/// # Errors
/// An internal error for a name without a reward behind it: a checked graph has none.
pub fn resolve(graph: &Graph, task: &Task) -> Result<Reward, OperatorError> {
    let Some(input) = task.input(Slot::Reward) else {
        return Err(OperatorError::internal(PLACE, format!("{}: nothing fills its input reward", task.label())));
    };
    resolve_input(graph, task, input)
}

fn resolve_input(graph: &Graph, task: &Task, input: Input) -> Result<Reward, OperatorError> {
    if let Input::Task(index) = input {
        return Ok(Reward::Task(index));
    }
    match graph.source(input).map(|source| &source.kind) {
        Some(SourceKind::Reward { reward }) => resolve_names(graph, task, reward),
        _ => Err(OperatorError::internal(PLACE, format!("{}: its input reward is not a reward", task.label()))),
    }
}

fn resolve_names(graph: &Graph, task: &Task, reward: &Reward) -> Result<Reward, OperatorError> {
    match reward {
        // The check of the graph refuses a reward made of itself, so this recursion ends.
        Reward::Named(name) => {
            let Some(named) = task.inputs(Slot::Rewards).find(|binding| binding.name == *name) else {
                return Err(OperatorError::internal(PLACE, format!("{}: nothing is the reward {name}", task.label())));
            };
            resolve_input(graph, task, named.input)
        }
        Reward::Sum(components) => {
            let component = |component: &Component| {
                let reward = resolve_names(graph, task, &component.reward)?;
                Ok(Component { weight: component.weight, name: component.name.clone(), reward })
            };
            components.iter().map(component).collect::<Result<_, OperatorError>>().map(Reward::Sum)
        }
        Reward::Sql(_) | Reward::Model(_) | Reward::Http(_) | Reward::Judge(_) | Reward::Process(_) | Reward::Task(_) => Ok(reward.clone()),
    }
}
