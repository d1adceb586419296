//! The tasks that stay on the machine of the run although there is a cluster, each with its reason.

use super::reward_tree;
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::spec::operator::Operator;

/// Why a task stays on this machine although there is a cluster; `None` if its parts go there.
pub fn staying(graph: &Graph, task: &Task) -> Option<&'static str> {
    match &task.operator {
        Operator::Generate(settings) if settings.engine.is_some() => Some("its server samples"),
        Operator::Generate(_) | Operator::Reference(_) | Operator::Evaluate(_) | Operator::Rank(_) | Operator::Answer(_) => None,
        Operator::Score(_) => match reward_tree::resolve(graph, task) {
            Ok(reward) if reward.has_model() => None,
            Ok(reward) if reward.is_relational() => Some("its query reads whole tables"),
            _ => Some("its servers or programs score"),
        },
        Operator::Train(settings) if settings.engine.is_some() => Some("its program trains"),
        Operator::Train(_) | Operator::Sft(_) | Operator::RewardModel(_) => Some("a training keeps its state in one process"),
        Operator::Command(_) => Some("its program runs beside the run"),
        Operator::Judge(_) => Some("its server judges"),
        Operator::Select(_) | Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) => Some("it reads whole tables"),
        Operator::Texts(_) | Operator::Grade(_) | Operator::AnswerResponses(_) | Operator::Benchmark(_) => Some("it has no model"),
    }
}
