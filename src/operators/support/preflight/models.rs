//! Checks of a task's models: their kind, their size, and their chat templates on the task's
//! prompts.

use std::path::Path;

use super::super::memory_budget::{self, Budget};
use super::super::{OperatorError, judging};
use super::Preflight;
use crate::model::{Checkpoint, Head, ModelError, PromptContent};
use crate::operators::score;
use crate::pipeline::graph::{Component, Input, Reward, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::judge::{Judge, Question};
use crate::pipeline::spec::operator::Operator;
use crate::tables::TableKind;

/// This module in internal errors.
const PLACE: &str = "operators::support::preflight::models";

impl<'a> Preflight<'a> {
    /// Plans a reward's queries, opens its models, makes its servers' clients without a request,
    /// and finds its Python functions. The reward has no names.
    pub(super) fn reward(&mut self, task: &Task, reward: &Reward) -> Result<(), OperatorError> {
        match reward {
            Reward::Sql(sql) => {
                let Some(session) = self.session(task)? else { return Ok(()) };
                session.register_empty("responses", TableKind::Responses.schema())?;
                if let Some(prompts) = task.input(Slot::Prompts) {
                    let Some(schema) = self.prompts(prompts)? else { return Ok(()) };
                    session.register_empty("prompts", schema)?;
                }
                score::check_columns(&*session.schema_of(sql)?)
            }
            Reward::Model(path) => {
                let checkpoint = Checkpoint::open(path)?.with_template_settings(task.template_settings());
                checkpoint.expect(Head::Reward)?;
                checkpoint.padding_warning().into_iter().for_each(|warning| self.checked.note(&task.label(), warning));
                has_kernels(&checkpoint, self.on_cpu(task)?)?;
                self.reads_messages(&checkpoint, task, Slot::Prompts)
            }
            // The check of its own task covers it.
            Reward::Task(_) => Ok(()),
            Reward::Http(settings) => score::clients(settings).map(drop),
            // Every iteration has the same.
            Reward::Process(process) if self.processes.contains(process) => Ok(()),
            Reward::Process(process) => {
                score::check_process(process)?.into_iter().for_each(|note| self.checked.note(&task.label(), note));
                self.processes.push((**process).clone());
                Ok(())
            }
            Reward::Judge(judge) => self.judge(task, judge, Question::Score),
            Reward::Named(name) => Err(OperatorError::internal(PLACE, format!("the name {name} in a resolved reward"))),
            Reward::Sum(components) => components.iter().try_for_each(|Component { name, reward, .. }| {
                self.reward(task, reward).map_err(|error| error.of(&format!("component {name}")))
            }),
        }
    }

    /// Checks a judge: its client without a request, and the columns that its template reads.
    pub(super) fn judge(&mut self, task: &Task, judge: &Judge, question: Question) -> Result<(), OperatorError> {
        judging::clients(judge)?;
        let template = judging::template(judge, question)?;
        let Some(prompts) = task.input(Slot::Prompts) else { return Ok(()) };
        let Some(schema) = self.prompts(prompts)? else { return Ok(()) };
        judging::check_variables(&schema, &template, question).map(drop).map_err(OperatorError::Input)
    }

    /// Checks for a chat template if the table in `slot` has messages only, and tries the template
    /// on a conversation.
    pub(super) fn reads_messages(&mut self, checkpoint: &Checkpoint, task: &Task, slot: Slot) -> Result<(), OperatorError> {
        let Some(input) = task.input(slot) else { return Ok(()) };
        let Some(schema) = self.table(input)? else { return Ok(()) };
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

    /// Checks the settings of each of the task's models: kernels for them where it does not run on
    /// the CPU, the length of its sequences, its head. Then the memory, if there is a budget. A
    /// model made by a task is like the outside model behind it.
    pub(super) fn computes(&mut self, task: &Task, budget: Option<Budget>, on_cpu: bool) -> Result<(), OperatorError> {
        for input in [Slot::Policy, Slot::From, Slot::Reference, Slot::Initial, Slot::Model].into_iter().flat_map(|slot| task.inputs(slot))
        {
            let Some(folder) = self.base_model(input.input) else { continue };
            let checkpoint = self.opened(folder)?;
            has_kernels(checkpoint, on_cpu)?;
            has_lengths(checkpoint, &task.operator)?;
            if matches!(task.operator, Operator::RewardModel(_)) {
                checkpoint.check_reward_head()?;
            }
            if let Some(budget) = budget {
                memory_budget::check(budget, &task.operator, checkpoint)?;
            }
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

/// Checks that a model can be computed where it will be.
pub(super) fn has_kernels(checkpoint: &Checkpoint, on_cpu: bool) -> Result<(), OperatorError> {
    match checkpoint.config.setting_without_gpu_kernels().filter(|_| !on_cpu) {
        Some(setting) => Err(OperatorError::Input(format!(
            "{}: {} has {setting}, which is not implemented on a GPU; use the CPU: device: cpu",
            checkpoint.folder().display(),
            checkpoint.config.family
        ))),
        None => Ok(()),
    }
}

/// Checks the longest sequences that are asked for, where a model can read less than its context.
fn has_lengths(checkpoint: &Checkpoint, operator: &Operator) -> Result<(), OperatorError> {
    let (longest, Some(reason)) = checkpoint.config.longest_sequence() else { return Ok(()) };
    let (asked, names) = match operator {
        Operator::Generate(settings) => {
            (u64::from(settings.max_prompt_tokens) + u64::from(settings.max_new_tokens), "max_prompt_tokens and max_new_tokens together")
        }
        Operator::Sft(settings) => (
            u64::from(settings.max_prompt_tokens) + u64::from(settings.max_response_tokens),
            "max_prompt_tokens and max_response_tokens together",
        ),
        Operator::RewardModel(settings) => (u64::from(settings.max_tokens), "max_tokens"),
        _ => return Ok(()),
    };
    if asked <= longest as u64 {
        return Ok(());
    }
    Err(OperatorError::Input(format!("{names}: expected at most {longest} tokens, found {asked}; {reason}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::has_kernels;
    use crate::model::Checkpoint;

    #[test]
    fn what_has_no_kernel_for_gpus_is_refused_there_by_its_setting() {
        let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
        let check = |name: &str, on_cpu: bool| has_kernels(&Checkpoint::open_blank(&families.join(name)).unwrap(), on_cpu);
        for name in ["qwen3", "llama3", "phi3"] {
            check(name, false).unwrap();
        }
        for (name, expected) in [
            ("gemma2", "Gemma2 has norms behind attention and MLP, which is not implemented on a GPU; use the CPU: device: cpu"),
            ("phi4_mini", "Phi3 has partial_rotary_factor"),
            ("granite", "Granite has logits_scaling"),
            ("olmo2", "Olmo2 has norms over all heads"),
            ("mixtral", "Mixtral has routed experts"),
            ("qwen3_moe_reward", "Qwen3Moe has routed experts"),
        ] {
            check(name, true).unwrap();
            let error = check(name, false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
