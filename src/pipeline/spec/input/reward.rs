//! A reward: how responses are scored, by one source or by a weighted sum of several.
//!
//! Knows what there is to say about it, not how it is written ([`super::reward_keys`]) or computed.

use super::super::query::Query;
use super::Server;
use crate::pipeline::position::Name;

/// A way to reward responses.
#[derive(Clone, Debug, PartialEq)]
pub enum Reward {
    /// One source, whose reward is taken as it is.
    One(RewardSource),
    /// The sum of several, each times its weight.
    Sum(Vec<Component>),
}

/// Where a reward comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum RewardSource {
    /// A query over `responses`, `prompts` and any other table of the pipeline; gives a `reward` for every response.
    Sql(Query),
    /// A directory with a reward model.
    Model(Name),
    /// A server that scores batches.
    Http(Server),
    /// Another reward of the pipeline, an input or a node; in a sum only.
    Named(Name),
}

/// One term of a weighted sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// What its reward is multiplied by.
    pub weight: f64,
    /// The name that it has among the components of each reward; unique in its sum.
    pub name: String,
    /// Where its reward comes from.
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
}
