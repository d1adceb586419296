//! command: a table or a model made by a program of the user's.
//!
//! Knows neither the program nor what it does.

mod table;

use std::path::Path;

use super::support::program::environment::{Variables, input, variable};
use super::support::program::{self, Product, model};
use super::{Context, OperatorError, Summary};
use crate::model::Head;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::command::{Command, Made};

/// Runs the program and takes its output.
pub(super) fn run(context: &Context, settings: &Command) -> Result<Summary, OperatorError> {
    let (product, head) = match settings.output {
        Made::Model => (Product::Model, Some(Head::CausalLm)),
        Made::RewardModel => (Product::Model, Some(Head::Reward)),
        _ => (Product::Table, None),
    };
    let take = |output: &Path| match head {
        Some(head) => model::take(context, head, output),
        None => table::take(context, settings, output),
    };
    program::run(context, settings.program(), product, |folder| inputs(context, folder), take)
}

/// The variables of the inputs. Files that have to be made are in `folder`.
fn inputs(context: &Context, folder: &Path) -> Result<Variables, OperatorError> {
    let mut variables = Variables::new();
    for binding in context.task.inputs(Slot::Inputs) {
        let path = input(context, binding, &folder.join(&binding.name))?;
        variables.extend(variable(&binding.name, &path)?);
    }
    Ok(variables)
}
