//! Checks of a task's models: their kind, their size, and their chat templates on the task's
//! prompts.

use std::path::Path;

use super::super::memory_budget::{self, Budget};
use super::super::{OperatorError, reward_tree};
use super::Preflight;
use crate::model::{Checkpoint, Head, ModelError, PromptContent};
use crate::operators::score;
use crate::pipeline::graph::{Component, Input, Reward, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::Operator;
use crate::tables::TableKind;

/// This module in internal errors.
const PLACE: &str = "operators::support::preflight::models";

impl<'a> Preflight<'a> {
    /// Encodes the first prompts of an outside table as the task's model will: an invalid chat
    /// template fails for all of them. A single prompt refused by the template becomes a row with
    /// an error when the task runs.
    pub(super) fn encode_first_prompts(&mut self, task: &Task) -> Result<(), OperatorError> {
        for (model, prompts) in [(Slot::Policy, Slot::Prompts), (Slot::From, Slot::Demonstrations), (Slot::From, Slot::Preferences)] {
            let (Some(model), Some(Input::Source(table))) = (task.input(model), task.input(prompts)) else { continue };
            if matches!(task.operator, Operator::RewardModel(_)) {
                // A reward model reads whole conversations, never a prompt without its response.
                continue;
            }
            let Some(folder) = self.base_model(model) else { continue };
            let Some(prompts) = self.first_prompts.get(&table) else { continue };
            if !self.encoded.insert((folder, table)) || prompts.iter().all(|prompt| matches!(prompt, PromptContent::Text(_))) {
                continue;
            }
            let checkpoint = Checkpoint::open_blank(folder)?.with_template_settings(task.template_settings());
            let mut refusals = Vec::new();
            for prompt in prompts {
                match checkpoint.encode_prompt(prompt) {
                    Ok(_) => {}
                    Err(error @ (ModelError::Chat(_) | ModelError::Invalid { .. })) => return Err(error.into()),
                    Err(refused) => refusals.push(refused),
                }
            }
            if refusals.len() == prompts.len()
                && let Some(first) = refusals.into_iter().next()
            {
                return Err(first.into());
            }
        }
        Ok(())
    }

    /// Plans a reward's queries, opens its models, and makes its servers' clients without a
    /// request. The reward has no names.
    pub(super) fn reward(&mut self, task: &Task, reward: &Reward) -> Result<(), OperatorError> {
        match reward {
            Reward::Sql(sql) => {
                let session = self.session(task)?;
                session.register_empty("responses", TableKind::Responses.schema())?;
                if let Some(prompts) = task.input(Slot::Prompts) {
                    session.register_empty("prompts", self.prompts(prompts)?)?;
                }
                score::check_columns(&*session.schema_of(sql)?)
            }
            Reward::Model(path) => {
                let checkpoint = Checkpoint::open(path)?.with_template_settings(task.template_settings());
                checkpoint.expect(Head::Reward)?;
                checkpoint.padding_warning().into_iter().for_each(|warning| self.checked.note(&task.label(), warning));
                self.reads_messages(&checkpoint, task, Slot::Prompts)
            }
            // The check of its own task covers it.
            Reward::Task(_) => Ok(()),
            Reward::Http(settings) => score::client(settings).map(drop),
            Reward::Named(name) => Err(OperatorError::internal(PLACE, format!("the name {name} in a resolved reward"))),
            Reward::Sum(components) => components.iter().try_for_each(|Component { name, reward, .. }| {
                self.reward(task, reward).map_err(|error| error.of(&format!("component {name}")))
            }),
        }
    }

    /// Checks for a chat template if the table in `slot` has messages only, and tries the template
    /// on a conversation.
    pub(super) fn reads_messages(&mut self, checkpoint: &Checkpoint, task: &Task, slot: Slot) -> Result<(), OperatorError> {
        let Some(input) = task.input(slot) else { return Ok(()) };
        let schema = self.table(input)?;
        let has = |column: &str| schema.field_with_name(column).is_ok();
        if has("messages") && !has("prompt") && checkpoint.chat_template.is_none() {
            return Err(OperatorError::Input(format!(
                "{}: expected a chat template because {slot} are messages, found none; add chat_template.jinja, or give them as text",
                checkpoint.folder().display()
            )));
        }
        // A reward model reads plain prompts through its template too. A refusal of this
        // conversation is no fault of the template.
        match checkpoint.encode_conversation(&PromptContent::Text("Hello.".to_string()), "Hello.") {
            Err(error @ ModelError::Chat(_)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Checks the memory for each of the task's models. A model made by a task is as large as the
    /// outside model behind it.
    pub(super) fn fits(&mut self, task: &Task, budget: Budget) -> Result<(), OperatorError> {
        self.each_model(task, |checkpoint| memory_budget::check(budget, &task.operator, checkpoint))
    }

    /// Checks that kernels for a GPU know each of the task's models.
    pub(super) fn runs_on_a_gpu(&mut self, task: &Task) -> Result<(), OperatorError> {
        if let Operator::Score(_) = &task.operator {
            reward_on_a_gpu(&reward_tree::resolve(self.graph, task)?)?;
        }
        self.each_model(task, on_a_gpu)
    }

    /// Hands each of the task's models to `check`, opened without weights. A model made by a task
    /// has the shape of the outside model behind it.
    fn each_model(&mut self, task: &Task, check: impl Fn(&Checkpoint) -> Result<(), OperatorError>) -> Result<(), OperatorError> {
        for input in [Slot::Policy, Slot::From, Slot::Reference, Slot::Initial, Slot::Model].into_iter().flat_map(|slot| task.inputs(slot))
        {
            let Some(folder) = self.base_model(input.input) else { continue };
            check(self.opened(folder)?)?;
        }
        Ok(())
    }

    /// The outside model at the start of a model's trainings; it has the same tokenizer and chat
    /// template.
    pub(super) fn base_model(&self, mut model: Input) -> Option<&'a Path> {
        loop {
            match self.graph.source(model).map(|source| &source.kind) {
                Some(SourceKind::Model { path }) => return Some(path),
                Some(_) => return None,
                None => model = self.graph.task(model)?.input(Slot::From)?,
            }
        }
    }
}

/// [`on_a_gpu`] for each model of a reward.
fn reward_on_a_gpu(reward: &Reward) -> Result<(), OperatorError> {
    match reward {
        Reward::Model(path) => on_a_gpu(&Checkpoint::open_blank(path)?),
        Reward::Sum(components) => components.iter().try_for_each(|component| reward_on_a_gpu(&component.reward)),
        Reward::Sql(_) | Reward::Http(_) | Reward::Named(_) | Reward::Task(_) => Ok(()),
    }
}

/// Checks for parts of a model without a kernel for GPUs.
fn on_a_gpu(checkpoint: &Checkpoint) -> Result<(), OperatorError> {
    match &checkpoint.config.experts {
        None => Ok(()),
        Some(experts) => Err(OperatorError::Input(format!(
            "{}: has {} routed experts a layer, which run on the CPU only; expected `resources: {{ device: cpu }}`",
            checkpoint.folder().display(),
            experts.num_experts
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::on_a_gpu;
    use crate::model::Checkpoint;

    #[test]
    fn routed_experts_are_refused_on_a_gpu() {
        let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
        let check = |name: &str| on_a_gpu(&Checkpoint::open_blank(&families.join(name)).unwrap());
        check("qwen3").unwrap();
        for (name, experts) in [("mixtral", 4), ("qwen3_moe_reward", 6)] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}: has {experts} routed experts a layer, which run on the CPU only")), "{error}");
        }
    }
}
