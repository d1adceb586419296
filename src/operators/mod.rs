//! The operators, one file each, in the order data flows through them.
//!
//! ```text
//! sft ─▶ reward_model ─▶ rank ─▶ select ─▶ generate ─▶ score ─▶ merge ─▶ pair ─▶ reference ─▶ train ─▶ evaluate      sql: anywhere
//! ```
//!
//! A stage reads tables and models that the store verified, and writes one output through it, part by part where it is long.
//! This is the only place that sees both Arrow and burn. Stages know nothing of each other, of the schedule, or of the terminal.

mod evaluate;
mod generate;
pub mod merge;
pub mod pair;
mod rank;
mod reference;
mod reward_model;
mod score;
pub mod select;
mod sft;
mod sql;
pub mod support;
mod train;

pub use support::{Context, DatasetFormats, OperatorError, Progress, Silent, check, device_choice, recipe, training_recipe};

use support::reward_tree::Reward;

use crate::import::Prompt;

use crate::dag::schedule::Lane;
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::spec::operator::Operator;

/// What a finished stage says of itself.
#[derive(Clone, Debug)]
pub struct Summary {
    /// A few words for people.
    pub text: String,
    /// Tokens generated or trained on by this call; 0 for relational stages.
    pub tokens: u64,
}

impl Summary {
    fn new(text: String) -> Self {
        Self { text, tokens: 0 }
    }
}

/// The operator's version, part of every fingerprint: raised when its output changes for the same inputs and settings.
pub fn version(operator: &Operator) -> u32 {
    match operator {
        Operator::Generate(_) | Operator::Reference => 4,
        Operator::Score(_)
        | Operator::Train(_)
        | Operator::Evaluate(_)
        | Operator::Sft(_)
        | Operator::RewardModel(_)
        | Operator::Rank(_) => 3,
        Operator::Select(_) | Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) => 1,
    }
}

/// What a task of the graph occupies while it runs.
pub fn lane(graph: &Graph, task: &Task) -> Lane {
    match &task.operator {
        Operator::Generate(settings) if settings.engine.is_some() => Lane::Server,
        Operator::Generate(_) | Operator::Reference | Operator::Train(_) | Operator::Evaluate(_) | Operator::Sft(_) => Lane::Device,
        Operator::RewardModel(_) | Operator::Rank(_) => Lane::Device,
        Operator::Score(_) => match Reward::of(graph, task) {
            Ok(reward) if reward.has_model() => Lane::Device,
            Ok(reward) if !reward.is_relational() => Lane::Server,
            _ => Lane::Relational,
        },
        Operator::Select(_) | Operator::Merge(_) | Operator::Pair(_) | Operator::Sql(_) => Lane::Relational,
    }
}

/// Runs the task of `context` from wherever it was left to its end.
///
/// # Errors
/// What went wrong, or [`OperatorError::Stopped`] when the run was asked to stop; everything committed until then is kept.
pub fn run(context: &Context) -> Result<Summary, OperatorError> {
    match &context.task.operator {
        Operator::Select(settings) => select::run(context, settings),
        Operator::Generate(settings) => generate::run(context, settings),
        Operator::Score(settings) => score::run(context, settings),
        Operator::Merge(settings) => merge::run(context, settings),
        Operator::Pair(settings) => pair::run(context, settings),
        Operator::Reference => reference::run(context),
        Operator::Train(settings) => train::run(context, settings),
        Operator::Evaluate(_) => evaluate::run(context),
        Operator::Sft(settings) => sft::run(context, settings),
        Operator::RewardModel(settings) => reward_model::run(context, settings),
        Operator::Rank(settings) => rank::run(context, settings),
        Operator::Sql(settings) => sql::run(context, settings),
    }
}
