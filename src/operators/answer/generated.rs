//! Generated answers: the most likely token at each step, up to an end token, a stop string or the
//! length limit.

use super::asked::{Answered, Asked, empty_row};
use super::context;
use crate::generation::{self, Generated, Sampling};
use crate::model::Checkpoint;
use crate::operators::OperatorError;
use crate::operators::support::model_work::{Job, Samples};
use crate::operators::support::rows::signed;
use crate::pipeline::spec::benchmark::task::GenerateAnswer;
use crate::tables::{FinishReason, answers};
use crate::token_lists::TokenLists;

/// This module in internal errors.
const PLACE: &str = "operators::answer::generated";

/// The prompts of some items of one task, each with the number of its cut tokens.
pub(super) struct Prompts(Vec<(Vec<i32>, usize)>);

impl Prompts {
    pub(super) fn new(checkpoint: &Checkpoint, settings: &GenerateAnswer, asked: &[Asked]) -> Result<Self, OperatorError> {
        let max_new_tokens = settings.max_new_tokens as usize;
        let longest = checkpoint.config.longest_sequence().0;
        let room = longest.saturating_sub(max_new_tokens);
        if room == 0 {
            let problem = format!("max_new_tokens: expected fewer than the model's {longest} tokens, found {max_new_tokens}");
            return Err(OperatorError::Input(problem));
        }
        let mut prompts = Vec::with_capacity(asked.len());
        for asked in asked {
            let of_item = |error: OperatorError| error.of(&format!("item {}", asked.item.id));
            let (text, special) = context::text(checkpoint, asked).map_err(of_item)?;
            let mut ids = if text.is_empty() {
                let problem = || OperatorError::Input("expected a question, found an empty text".to_string());
                vec![checkpoint.opening_token().ok_or_else(problem).map_err(of_item)?]
            } else {
                checkpoint.tokenizer.encode(&text, special).map_err(|error| of_item(error.into()))?
            };
            let cut = ids.len().saturating_sub(room);
            ids.drain(..cut);
            prompts.push((ids, cut));
        }
        Ok(Self(prompts))
    }

    /// The sampling of their answers.
    pub(super) fn job(&self, checkpoint: &Checkpoint, settings: &GenerateAnswer, batch_size: Option<usize>) -> Result<Job, OperatorError> {
        let rows: Vec<&[i32]> = self.0.iter().map(|(ids, _)| ids.as_slice()).collect();
        Ok(Job::Samples(Samples {
            prompts: TokenLists::from_rows(&rows)?,
            // The most likely token needs no random number.
            seeds: vec![vec![[0; 32]]; rows.len()],
            sampling: Sampling::greedy(checkpoint, settings.max_new_tokens as usize),
            stop: settings.stop.clone(),
            stop_after_tokens: 0,
            batch_size,
        }))
    }

    /// The rows of the items, with the sampled answers.
    pub(super) fn answers(
        &self,
        checkpoint: &Checkpoint,
        settings: &GenerateAnswer,
        asked: &[Asked],
        generated: Generated,
    ) -> Result<Answered, OperatorError> {
        let mut answered = Answered { rows: Vec::with_capacity(asked.len()), tokens: 0 };
        for (index, (asked, (prompt, cut))) in asked.iter().zip(&self.0).enumerate() {
            let ids = generated.sequences.row(index)?;
            let response = ids.get(prompt.len()..).unwrap_or_default();
            let reason = match generated.finish_reasons.get(index) {
                Some(generation::FinishReason::Stop) => FinishReason::Stop,
                Some(generation::FinishReason::Length) => FinishReason::Length,
                None => return Err(OperatorError::internal(PLACE, "fewer answers than questions")),
            };
            answered.tokens += response.len() as u64;
            answered.rows.push(answers::Row {
                token_ids: ids.to_vec(),
                prompt_token_count: signed(prompt.len(), PLACE)?,
                text: before_stop(checkpoint.tokenizer.decode(response)?, &settings.stop),
                finish_reason: Some(reason),
                cut_tokens: signed(*cut, PLACE)?,
                ..empty_row(asked)
            });
        }
        Ok(answered)
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
