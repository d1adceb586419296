//! Checks of the ends of a task's responses: a model whose responses have no end is a fault of its
//! files, found before anything is computed.

use std::collections::hash_map::Entry;
use std::path::Path;

use super::super::OperatorError;
use super::Preflight;
use crate::model::Checkpoint;
use crate::pipeline::graph::{Input, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::Operator;

impl<'a> Preflight<'a> {
    /// Checks that a sampled response can end, and that a response to learn has an end. Warns of
    /// files that name different end tokens.
    pub(super) fn endings(&mut self, task: &Task) -> Result<(), OperatorError> {
        let learns = task.inputs(Slot::Demonstrations).next().is_some() || task.inputs(Slot::Preferences).next().is_some();
        let (model, learns) = match &task.operator {
            Operator::Generate(_) => (task.input(Slot::Policy), false),
            Operator::Sft(_) | Operator::Train(_) | Operator::Reference(_) => (task.input(Slot::From), learns),
            _ => return Ok(()),
        };
        let Some(model) = model else { return Ok(()) };
        let messages = match task.input(Slot::Prompts) {
            Some(prompts) => self.table(prompts)?.is_some_and(|schema| schema.field_with_name("messages").is_ok()),
            None => false,
        };
        let Some(folder) = self.base_model(model) else { return Ok(()) };
        let checkpoint = self.opened(folder)?;
        let stops = matches!(&task.operator, Operator::Generate(settings) if !settings.stop.is_empty());
        // A training teaches an end, whatever the template writes.
        let is_untrained = matches!(model, Input::Source(_));
        let endless = checkpoint.endless(messages && is_untrained).filter(|_| !stops);
        let warning = checkpoint.end_token_warning();
        if let Some(warning) = warning {
            self.checked.note(&task.label(), warning);
        }
        let samples = matches!(task.operator, Operator::Generate(_));
        match endless {
            Some(problem) if learns || (samples && messages) => Err(OperatorError::Input(problem)),
            Some(problem) if samples => {
                self.checked.note(&task.label(), format!("{problem}; until then all responses have max_new_tokens"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An outside model without its weights.
    pub(super) fn opened(&mut self, folder: &'a Path) -> Result<&Checkpoint, OperatorError> {
        Ok(match self.checkpoints.entry(folder) {
            Entry::Occupied(opened) => opened.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Checkpoint::open_blank(folder)?),
        })
    }
}
