//! A reward: one source, or a weighted sum of several sources.
//!
//! Knows the parts of a reward, not its keys ([`super::reward_keys`]) or its computation.

use super::super::judge::Judge;
use super::super::query::Query;
use super::{Process, Server};
use crate::pipeline::position::Name;

/// A reward for responses.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there are few in a pipeline")]
pub enum Reward {
    /// One source with weight 1.
    One(RewardSource),
    /// The sum of several, each times its weight.
    Sum(Vec<Component>),
}

/// The source of a reward.
#[derive(Clone, Debug, PartialEq)]
pub enum RewardSource {
    /// A query over `responses`, `prompts` and any other table of the pipeline. It returns a
    /// `reward` for every response.
    Sql(Query),
    /// A directory with a reward model.
    Model(Name),
    /// A server for batches of responses.
    Http(Server),
    /// A process for batches of responses: a command or a Python function.
    Process(Process),
    /// A model that is asked for a score of each response.
    Judge(Box<Judge>),
    /// Another reward of the pipeline, an input or a node; in a sum only.
    Named(Name),
}

/// One term of a weighted sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// The factor of its reward.
    pub weight: f64,
    /// Its name in the column `components` of the rewards; unique in the sum.
    pub name: String,
    /// The source of its reward.
    pub source: RewardSource,
}

impl Reward {
    /// The sources, in order.
    pub fn sources(&self) -> impl Iterator<Item = &RewardSource> {
        let (one, several) = match self {
            Self::One(source) => (Some(source), [].as_slice()),
            Self::Sum(components) => (None, components.as_slice()),
        };
        one.into_iter().chain(several.iter().map(|component| &component.source))
    }

    /// The queries, in order.
    pub fn queries_mut(&mut self) -> impl Iterator<Item = &mut Query> {
        let (one, several) = match self {
            Self::One(source) => (Some(source), [].as_mut_slice()),
            Self::Sum(components) => (None, components.as_mut_slice()),
        };
        one.into_iter().chain(several.iter_mut().map(|component| &mut component.source)).filter_map(|source| match source {
            RewardSource::Sql(query) => Some(query),
            _ => None,
        })
    }

    /// The judges, in order.
    pub fn judges_mut(&mut self) -> impl Iterator<Item = &mut Judge> {
        let (one, several) = match self {
            Self::One(source) => (Some(source), [].as_mut_slice()),
            Self::Sum(components) => (None, components.as_mut_slice()),
        };
        one.into_iter().chain(several.iter_mut().map(|component| &mut component.source)).filter_map(|source| match source {
            RewardSource::Judge(judge) => Some(&mut **judge),
            _ => None,
        })
    }
}
