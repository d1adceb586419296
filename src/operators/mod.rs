//! The operators, in the order of the data flow.
//!
//! ```text
//! sft ─▶ reward_model ─▶ rank
//!   ─▶ select ─▶ generate ─▶ score ─▶ merge ─▶ pair ─▶ reference ─▶ train ─▶ evaluate
//! sql, command: anywhere     answer ─▶ grade ─▶ benchmark: of any model
//! ```
//!
//! An operator reads tables and models verified by the store. It writes one output through the
//! store, part by part where it is long. Only this module sees both Arrow and burn. Operators know
//! neither each other, nor the schedule, nor the terminal.

// A policy: imitates demonstrations.
mod sft;

// A reward model: trained on preferences.
mod reward_model;

// A table: the reward model's rewards of held-out preferences.
mod rank;

// A table: the prompts of this iteration.
pub mod select;

// A table: responses of a policy to the selected prompts.
mod generate;

// A table: the rewards of responses.
mod score;

// A table: the pool of scored responses, new and carried over.
pub mod merge;

// A table: a chosen and a rejected response of each prompt.
pub mod pair;

// A table: the pairs with the logprobs of the reference model.
mod reference;

// A policy: trained on pairs.
mod train;

// A table: the policy's responses beside those of a baseline.
mod evaluate;

// A table: a model's answers to a benchmark.
mod answer;

// A table: generated answers as responses, for a reward.
mod answer_responses;

// A table: the scores of answers.
mod grade;

// A table: what tuning kept.
mod benchmark;
// A table: responses from a table of the user's own texts.
mod texts;

// A table: a judge's verdicts on the policy's responses beside a baseline's.
mod judge;

// A table of the user's own: the rows of a query.
mod sql;

// A table or a model of the user's own: the output of a program.
mod command;

// Shared by all operators.
pub mod support;

pub use score::process_identity;
pub use support::{
    Checked, Context, DatasetFormats, DeviceTime, Executors, OperatorError, PartServer, Progress, Silent, Summary, check, device_choice,
    devices_choice, lane, recipe, staying, training_recipe, version,
};

use crate::import::{Preference, Prompt};
use crate::pipeline::spec::operator::Operator;

/// Runs the task of `context` to its end, from where an earlier run left it.
///
/// # Errors
/// The problem, or [`OperatorError::Stopped`] when the run was asked to stop. Everything committed
/// until then stays.
pub fn run(context: &Context) -> Result<Summary, OperatorError> {
    match &context.task.operator {
        Operator::Select(settings) => select::run(context, settings),
        Operator::Generate(settings) => generate::run(context, settings),
        Operator::Score(settings) => score::run(context, settings),
        Operator::Merge(settings) => merge::run(context, settings),
        Operator::Pair(settings) => pair::run(context, settings),
        Operator::Reference(settings) => reference::run(context, settings),
        Operator::Train(settings) => train::run(context, settings),
        Operator::Evaluate(_) => evaluate::run(context),
        Operator::Texts(_) => texts::run(context),
        Operator::Judge(judge) => judge::run(context, judge),
        Operator::Sft(settings) => sft::run(context, settings),
        Operator::RewardModel(settings) => reward_model::run(context, settings),
        Operator::Rank(settings) => rank::run(context, settings),
        Operator::Answer(settings) => answer::run(context, settings),
        Operator::AnswerResponses(settings) => answer_responses::run(context, settings),
        Operator::Grade(settings) => grade::run(context, settings),
        Operator::Benchmark(settings) => benchmark::run(context, settings),
        Operator::Sql(settings) => sql::run(context, settings),
        Operator::Command(settings) => command::run(context, settings),
    }
}
