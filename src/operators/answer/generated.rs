//! Generated answers: the most likely token at each step, up to an end token, a stop string or the
//! length limit.

use std::ops::ControlFlow;

use super::{Answered, Asked, AskedTask, Loaded, Model, OperatorError, PLACE, context, empty_row};
use crate::compute::backend_for;
use crate::generation::{self, Generator, Sampling, StopStrings};
use crate::operators::support::memory_budget::{self, Budget};
use crate::operators::support::rows::signed;
use crate::pipeline::spec::benchmark::task::GenerateAnswer;
use crate::tables::{FinishReason, answers};
use crate::token_lists::TokenLists;

impl Model<'_> {
    /// The answers to some items of one task.
    pub(super) fn generate(&mut self, task: &AskedTask, settings: &GenerateAnswer, asked: &[Asked]) -> Result<Answered, OperatorError> {
        let max_new_tokens = settings.max_new_tokens as usize;
        let longest = self.checkpoint.config.longest_sequence().0;
        let room = longest.saturating_sub(max_new_tokens);
        if room == 0 {
            let problem = format!("max_new_tokens: expected fewer than the model's {longest} tokens, found {max_new_tokens}");
            return Err(OperatorError::Input(problem));
        }
        let mut prompts = Vec::with_capacity(asked.len());
        for asked in asked {
            let of_item = |error: OperatorError| error.of(&format!("item {}", asked.item.id));
            let (text, special) = context::text(self.checkpoint, asked).map_err(of_item)?;
            let mut ids = if text.is_empty() {
                let problem = || OperatorError::Input("expected a question, found an empty text".to_string());
                vec![self.checkpoint.opening_token().ok_or_else(problem).map_err(of_item)?]
            } else {
                self.checkpoint.tokenizer.encode(&text, special).map_err(|error| of_item(error.into()))?
            };
            let cut = ids.len().saturating_sub(room);
            ids.drain(..cut);
            prompts.push((ids, cut));
        }
        let rows: Vec<&[i32]> = prompts.iter().map(|(ids, _)| ids.as_slice()).collect();
        let sampling = Sampling::greedy(self.checkpoint, max_new_tokens);
        let batch_size = match self.context.task.resources.batch_size {
            Some(size) => size as usize,
            None => backend_for(&self.device).sequences_at_once(self.context.precision()),
        };
        let stop = StopStrings::new(&self.checkpoint.tokenizer, &settings.stop, 0);
        let generator = self.generator(max_new_tokens)?.stopping_at(stop);
        // The most likely token needs no random number.
        let seeds = vec![vec![[0; 32]]; rows.len()];
        let mut observed = 0;
        let mut observe = |tokens: usize| {
            observed = self.advance.observe(observed, tokens);
            ControlFlow::Continue(())
        };
        let sequences = TokenLists::from_rows(&rows)?;
        let generated = self.context.on_device(|| generator.generate(&sequences, &seeds, &sampling, batch_size, &mut observe))?;
        self.loaded = Loaded::Sampling(Box::new(generator));
        let mut answered = Answered { rows: Vec::with_capacity(asked.len()), tokens: 0, observed };
        for (index, (asked, (prompt, cut))) in asked.iter().zip(&prompts).enumerate() {
            let ids = generated.sequences.row(index)?;
            let response = ids.get(prompt.len()..).unwrap_or_default();
            let reason = match generated.finish_reasons.get(index) {
                Some(generation::FinishReason::Stop) => FinishReason::Stop,
                Some(generation::FinishReason::Length) => FinishReason::Length,
                None => return Err(OperatorError::internal(PLACE, format!("task {}: fewer answers than questions", task.name))),
            };
            answered.tokens += response.len() as u64;
            answered.rows.push(answers::Row {
                token_ids: ids.to_vec(),
                prompt_token_count: signed(prompt.len(), PLACE)?,
                text: before_stop(self.checkpoint.tokenizer.decode(response)?, &settings.stop),
                finish_reason: Some(reason),
                cut_tokens: signed(*cut, PLACE)?,
                ..empty_row(asked)
            });
        }
        Ok(answered)
    }

    /// The model to sample from.
    fn generator(&mut self, max_new_tokens: usize) -> Result<Generator, OperatorError> {
        if let Loaded::Sampling(generator) = std::mem::replace(&mut self.loaded, Loaded::Nothing) {
            return Ok(*generator);
        }
        let budget = Budget::new(&self.context.task.resources, self.context.on_cpu()?).map(|budget| budget.among(self.replicas));
        let bytes = budget.map(|budget| memory_budget::cache_bytes(budget, self.checkpoint, max_new_tokens)).transpose()?;
        let generator = Generator::load(self.checkpoint, &self.device, self.context.precision())?;
        // Above the largest address there is no limit of ours.
        Ok(match bytes {
            Some(bytes) => generator.within(usize::try_from(bytes).unwrap_or(usize::MAX)),
            None => generator,
        })
    }
}

/// The text in front of the first stop string.
fn before_stop(mut text: String, stop: &[String]) -> String {
    for string in stop {
        if let Some(at) = text.find(string) {
            text.truncate(at);
        }
    }
    text
}
