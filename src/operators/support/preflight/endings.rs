//! Checks of the ends of a task's responses: a model whose responses have no end is a fault of its
//! files, found before anything is computed.

use std::collections::hash_map::Entry;
use std::path::Path;

use super::super::OperatorError;
use super::Preflight;
use crate::model::Checkpoint;
use crate::pipeline::graph::Task;
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
        let mut messages = false;
        for asked in [Slot::Prompts, Slot::Demonstrations, Slot::Preferences].into_iter().filter_map(|slot| task.input(slot)) {
            messages |= self.table(asked)?.is_some_and(|schema| schema.field_with_name("messages").is_ok());
        }
        let Some(folder) = self.base_model(model) else { return Ok(()) };
        let checkpoint = self.opened(folder)?;
        let stops = matches!(&task.operator, Operator::Generate(settings) if !settings.stop.is_empty());
        let samples = matches!(task.operator, Operator::Generate(_));
        // The turns that a training teaches end as the template writes them.
        let endless = checkpoint.endless(messages && samples).filter(|_| !stops);
        let unended = checkpoint.unended_warning().filter(|_| learns && messages);
        for warning in checkpoint.end_token_warning().into_iter().chain(unended) {
            self.checked.note(&task.label(), warning);
        }
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
