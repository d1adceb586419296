//! The models of a task: that they are of the right kind, and that their chat templates write what will be asked.

use std::path::Path;

use super::super::OperatorError;
use super::super::memory_budget::{self, Budget};
use super::super::reward_tree::{ModelAt, Reward, Term};
use super::Known;
use crate::model::{Checkpoint, Head, ModelError, PromptContent};
use crate::operators::score;
use crate::pipeline::graph::{Input, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::Operator;
use crate::tables::TableKind;

impl<'a> Known<'a> {
    /// Encodes the first prompts of an outside table as the task's model will, because a chat template that fails does so for all of
    /// them. Single prompts that a template refuses become rows with an error when the task runs.
    pub(in crate::operators) fn try_prompts(&mut self, task: &Task) -> Result<(), OperatorError> {
        for (model, prompts) in [(Slot::Policy, Slot::Prompts), (Slot::From, Slot::Demonstrations), (Slot::From, Slot::Preferences)] {
            let (Some(model), Some(Input::Source(table))) = (task.input(model), task.input(prompts)) else { continue };
            if matches!(task.operator, Operator::RewardModel(_)) {
                // It reads whole conversations, never a prompt that waits for a response.
                continue;
            }
            let Some(folder) = self.base_model(model) else { continue };
            let asked = self.asked.get(&table).map(Vec::as_slice).unwrap_or_default();
            if !self.tried.insert((folder, table)) || asked.iter().all(|asked| matches!(asked, PromptContent::Text(_))) {
                continue;
            }
            let checkpoint = Checkpoint::open_blank(folder)?.with_date(task.date());
            let mut refusals = Vec::new();
            for asked in asked {
                match checkpoint.encode_prompt(asked) {
                    Ok(_) => {}
                    Err(error @ (ModelError::Chat(_) | ModelError::Invalid { .. })) => return Err(error.into()),
                    Err(refused) => refusals.push(refused),
                }
            }
            if refusals.len() == asked.len() {
                return Err(refusals.swap_remove(0).into());
            }
        }
        Ok(())
    }

    /// Plans a reward's queries, opens its models, and makes its servers' clients, which ask nothing yet.
    pub(in crate::operators) fn reward(&mut self, task: &Task, reward: &Reward) -> Result<(), OperatorError> {
        match reward {
            Reward::Query(sql) => {
                let session = self.session(task)?;
                session.register_empty("responses", TableKind::Responses.schema())?;
                if let Some(prompts) = task.input(Slot::Prompts) {
                    session.register_empty("prompts", self.prompts(prompts)?)?;
                }
                score::check_columns(&*session.schema_of(sql)?)
            }
            Reward::Model(ModelAt::Outside(path)) => {
                let checkpoint = Checkpoint::open(path)?.with_date(task.date());
                checkpoint.expect(Head::Reward)?;
                self.reads_messages(&checkpoint, task, Slot::Prompts)
            }
            // The node that makes it is checked for itself.
            Reward::Model(ModelAt::Made(_)) => Ok(()),
            Reward::Server(settings) => score::client(settings).map(drop),
            Reward::Sum(terms) => {
                let mut check =
                    |term: &Term| self.reward(task, &term.reward).map_err(|error| error.of(&format!("component {}", term.name)));
                terms.iter().try_for_each(&mut check)
            }
        }
    }

    /// That a model has a chat template if the table in `slot` asks by messages alone, and that the template does not fail.
    pub(in crate::operators) fn reads_messages(&mut self, checkpoint: &Checkpoint, task: &Task, slot: Slot) -> Result<(), OperatorError> {
        let Some(input) = task.input(slot) else { return Ok(()) };
        let schema = self.table(input)?;
        let asks = |column: &str| schema.field_with_name(column).is_ok();
        if asks("messages") && !asks("prompt") && checkpoint.chat_template.is_none() {
            return Err(OperatorError::Input(format!(
                "{}: expected a chat template because {slot} are messages, found none; add chat_template.jinja, or give them as text",
                checkpoint.folder().display()
            )));
        }
        // A reward model reads plain prompts through its template too. Some templates refuse a conversation; that is for the rows to show.
        match checkpoint.encode_conversation(&PromptContent::Text("Hello.".to_string()), "Hello.") {
            Err(error @ ModelError::Chat(_)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// That each of the task's models fits into its memory: a model that is made here is as large as the one it began as.
    pub(in crate::operators) fn fits(&mut self, task: &Task, budget: Budget) -> Result<(), OperatorError> {
        for input in [Slot::Policy, Slot::From, Slot::Reference, Slot::Initial, Slot::Model].into_iter().flat_map(|slot| task.inputs(slot))
        {
            let Some(folder) = self.base_model(input.input) else { continue };
            if !self.opened.contains_key(folder) {
                self.opened.insert(folder, Checkpoint::open_blank(folder)?);
            }
            self.opened.get(folder).map_or(Ok(()), |checkpoint| memory_budget::check(budget, &task.operator, checkpoint))?;
        }
        Ok(())
    }

    /// The outside model that a model began as: it has the same tokenizer and chat template.
    fn base_model(&self, mut model: Input) -> Option<&'a Path> {
        loop {
            match self.graph.source(model).map(|source| &source.kind) {
                Some(SourceKind::Model { path }) => return Some(path),
                Some(_) => return None,
                None => model = self.graph.task(model)?.input(Slot::From)?,
            }
        }
    }
}
