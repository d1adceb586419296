//! The precision of a task: its node's own, or the file's, where it computes a model on this
//! machine.
//!
//! Knows inputs and settings, not how a model is computed.

use super::error::Diagnostic;
use super::graph::{Binding, Input, Source, SourceKind};
use super::position::At;
use super::slot::Slot;
use super::spec::operator::Operator;
use super::spec::precision::Precision;

/// The precision of the models of a task; `F32` for a task without one. `own` is that of its node,
/// if the node has one, with whether the task has the name of the node.
///
/// # Errors
/// A precision on a node that computes no model here.
pub(super) fn of_task(
    file: Precision,
    own: Option<(&At<Precision>, bool)>,
    operator: &Operator,
    sources: &[Source],
    inputs: &[Binding],
) -> Result<Precision, Diagnostic> {
    let useless = match operator {
        Operator::Generate(generate) => generate
            .engine
            .as_ref()
            .map(|engine| format!("the server of \"{}\" chooses the precision of the policy; leave out \"precision\"", engine.model.value)),
        Operator::Score(score) if !has_model(sources, inputs) => {
            Some(format!("\"precision\" is for reward models on this machine, and \"{}\" has none; leave it out", score.reward.value))
        }
        Operator::Score(_)
        | Operator::Reference(_)
        | Operator::Train(_)
        | Operator::Evaluate(_)
        | Operator::Sft(_)
        | Operator::RewardModel(_)
        | Operator::Rank(_)
        | Operator::Answer(_) => None,
        Operator::Select(_) | Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) | Operator::Command(_) => {
            return Ok(Precision::F32);
        }
        Operator::Texts(_) | Operator::Judge(_) => return Ok(Precision::F32),
        Operator::Grade(_) | Operator::AnswerResponses(_) | Operator::Benchmark(_) => return Ok(Precision::F32),
    };
    match (own, useless) {
        (own, None) => Ok(own.map_or(file, |(own, _)| own.value)),
        // The responses and rewards of an evaluation are tasks of their own: it has other models.
        (Some((own, true)), Some(problem)) => Err(Diagnostic::at(own.span, problem)),
        (_, Some(_)) => Ok(Precision::F32),
    }
}

/// Whether the reward in these inputs has a reward model.
fn has_model(sources: &[Source], inputs: &[Binding]) -> bool {
    let rewards = inputs.iter().filter(|input| [Slot::Reward, Slot::Rewards].contains(&input.slot));
    rewards.into_iter().any(|reward| match reward.input {
        Input::Task(_) => true,
        Input::Source(index) => {
            matches!(sources.get(index).map(|source| &source.kind), Some(SourceKind::Reward { reward }) if reward.has_model())
        }
    })
}
