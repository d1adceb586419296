//! Fixed properties of each operator: its version, and its lane in the schedule.

use super::reward_tree;
use crate::dag::schedule::Lane;
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::spec::operator::Operator;

/// The operator's version, part of every fingerprint: raised when its output changes for the same
/// inputs and settings.
pub fn version(operator: &Operator) -> u32 {
    match operator {
        Operator::Train(train) if train.engine.is_some() => 1,
        Operator::Train(_) | Operator::Sft(_) | Operator::RewardModel(_) | Operator::Generate(_) => 7,
        Operator::Reference(_) => 6,
        Operator::Score(_) | Operator::Rank(_) => 5,
        Operator::Evaluate(_) => 4,
        Operator::Texts(_) => 3,
        Operator::Select(_) | Operator::Answer(_) | Operator::Grade(_) | Operator::AnswerResponses(_) => 2,
        Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) | Operator::Command(_) => 1,
        Operator::Benchmark(_) | Operator::Judge(_) => 1,
    }
}

/// The lane of the schedule for a task of the graph.
pub fn lane(graph: &Graph, task: &Task) -> Lane {
    match &task.operator {
        Operator::Generate(settings) if settings.engine.is_some() => Lane::Server,
        Operator::Generate(_) | Operator::Reference(_) | Operator::Train(_) | Operator::Evaluate(_) | Operator::Sft(_) => Lane::Device,
        // A program may take a GPU, or all cores.
        Operator::RewardModel(_) | Operator::Rank(_) | Operator::Command(_) | Operator::Answer(_) => Lane::Device,
        Operator::Score(_) => match reward_tree::resolve(graph, task) {
            Ok(reward) if reward.has_model() => Lane::Device,
            Ok(reward) if reward.is_relational() => Lane::Relational,
            Ok(_) => Lane::Server,
            // The task resolves its reward too, and reports this error.
            Err(_) => Lane::Relational,
        },
        Operator::Judge(_) => Lane::Server,
        Operator::Select(_) | Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) | Operator::Texts(_) => Lane::Relational,
        Operator::Grade(_) | Operator::AnswerResponses(_) | Operator::Benchmark(_) => Lane::Relational,
    }
}
