//! The number of examples of a training, as far as it is known before a run.

use std::collections::HashSet;

use super::super::{OperatorError, learning_rate};
use super::Preflight;
use crate::pipeline::graph::{Input, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::held_out::HeldOut;
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::sft::TrainOn;

/// The slots with the rows that a task's own rows are made of.
const ROWS: [Slot; 7] = [Slot::Pairs, Slot::Pool, Slot::Fresh, Slot::Carried, Slot::Responses, Slot::Prompts, Slot::Preferences];

impl Preflight<'_> {
    /// Checks that a training has a learning rate above 0 in some step.
    pub(super) fn learns(&self, task: &Task) -> Result<(), OperatorError> {
        let (hyperparameters, most) = match &task.operator {
            // A conversation has any number of messages to train on.
            Operator::Sft(settings) if settings.train_on == TrainOn::AllAssistant => return Ok(()),
            Operator::Sft(settings) => (settings.hyperparameters(), self.rows_behind(task.input(Slot::Demonstrations))),
            // A program has a schedule of its own.
            Operator::Train(settings) if settings.engine.is_some() => return Ok(()),
            Operator::Train(settings) => {
                (settings.hyperparameters(), self.rows_behind(task.input(Slot::Preferences).or(task.input(Slot::Pairs))))
            }
            Operator::RewardModel(settings) => {
                // A share above 0 holds out at least one preference.
                let held_out = usize::from(matches!(settings.held_out, HeldOut::Share(share) if share > 0.0));
                (settings.hyperparameters(), self.rows_behind(task.input(Slot::Preferences)).map(|rows| rows.saturating_sub(held_out)))
            }
            _ => return Ok(()),
        };
        most.map_or(Ok(()), |most| learning_rate::check(&hyperparameters, most, &format!("at most {most} examples")))
    }

    /// The most rows of a table with one row for each prompt: those of the outside tables behind
    /// it. `None` if a query or a command is among them.
    fn rows_behind(&self, input: Option<Input>) -> Option<usize> {
        let mut open = vec![input?];
        let mut seen = HashSet::new();
        let mut rows = 0;
        while let Some(input) = open.pop() {
            if !seen.insert(input) {
                continue;
            }
            match (input, self.graph.task(input)) {
                (Input::Source(index), _) => rows += self.rows.get(&index)?,
                (_, Some(task)) if !matches!(task.operator, Operator::Sql(_) | Operator::Command(_)) => {
                    open.extend(ROWS.iter().flat_map(|slot| task.inputs(*slot)).map(|binding| binding.input));
                }
                _ => return None,
            }
        }
        Some(rows)
    }
}
