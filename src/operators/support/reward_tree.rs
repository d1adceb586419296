//! A task's reward, with all that it names: a tree with queries, models and servers at its ends.
//!
//! Follows names through the graph; loads nothing and asks nobody.

use std::path::Path;

use super::OperatorError;
use crate::pipeline::graph::{self, Graph, Input, RewardSource, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::input::Server;

/// How responses are scored.
#[derive(Debug)]
pub enum Reward<'a> {
    /// By a query, given as its text.
    Query(&'a str),
    /// By a reward model.
    Model(ModelAt<'a>),
    /// By a server.
    Server(&'a Server),
    /// By the sum of several, each times its weight.
    Sum(Vec<Term<'a>>),
}

/// Where a reward model lies.
#[derive(Clone, Copy, Debug)]
pub enum ModelAt<'a> {
    /// In a directory of the user's.
    Outside(&'a Path),
    /// Where this task puts it.
    Made(&'a Task),
}

/// One term of a sum.
#[derive(Debug)]
pub struct Term<'a> {
    /// What its reward is multiplied by.
    pub weight: f64,
    /// The name of the component.
    pub name: &'a str,
    /// How it is scored.
    pub reward: Reward<'a>,
}

impl<'a> Reward<'a> {
    /// The reward of a `score` task.
    ///
    /// # Errors
    /// A name that leads nowhere, which a checked graph does not have.
    pub fn of(graph: &'a Graph, task: &'a Task) -> Result<Self, OperatorError> {
        let missing = || OperatorError::Input(format!("{}: nothing fills its input reward", task.label()));
        filled(graph, task, task.input(Slot::Reward).ok_or_else(missing)?)
    }

    /// The ends of the tree, in order.
    pub fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::Sum(terms) => terms.iter().flat_map(|term| term.reward.leaves()).collect(),
            leaf => vec![leaf],
        }
    }

    /// Whether there is nothing but queries.
    pub fn is_relational(&self) -> bool {
        self.leaves().iter().all(|leaf| matches!(leaf, Self::Query(_)))
    }

    /// Whether there is a model.
    pub fn has_model(&self) -> bool {
        self.leaves().iter().any(|leaf| matches!(leaf, Self::Model(_)))
    }
}

fn filled<'a>(graph: &'a Graph, task: &'a Task, input: Input) -> Result<Reward<'a>, OperatorError> {
    if let Some(made) = graph.task(input) {
        return Ok(Reward::Model(ModelAt::Made(made)));
    }
    match graph.source(input).map(|source| &source.kind) {
        Some(SourceKind::Reward { reward: graph::Reward::One(source) }) => leaf(graph, task, source),
        Some(SourceKind::Reward { reward: graph::Reward::Sum(components) }) => {
            let term = |component: &'a graph::Component| {
                Ok(Term { weight: component.weight, name: &component.name, reward: leaf(graph, task, &component.source)? })
            };
            components.iter().map(term).collect::<Result<_, OperatorError>>().map(Reward::Sum)
        }
        _ => Err(OperatorError::Input(format!("{}: its input reward is not a reward", task.label()))),
    }
}

fn leaf<'a>(graph: &'a Graph, task: &'a Task, source: &'a RewardSource) -> Result<Reward<'a>, OperatorError> {
    Ok(match source {
        RewardSource::Sql(sql) => Reward::Query(sql),
        RewardSource::Model(path) => Reward::Model(ModelAt::Outside(path)),
        RewardSource::Http(server) => Reward::Server(server),
        // The graph's check found that no reward is made of itself, so this ends.
        RewardSource::Named(name) => {
            let named = task.inputs(Slot::Rewards).find(|slot| slot.name == *name);
            let missing = || OperatorError::Input(format!("{}: nothing is the reward {name}", task.label()));
            filled(graph, task, named.ok_or_else(missing)?.input)?
        }
    })
}
