//! A server's response as a row: its ids, or the ids of its text, with every rule of a response
//! checked.
//!
//! Knows the policy's tokenizer, not the server.

use super::super::super::OperatorError;
use super::super::super::support::rows::signed;
use super::super::{response_text, without_cut};
use super::job::{Item, PLACE, ServerJob};
use crate::pipeline::spec::generate::Generate;
use crate::remote::{Completion, Finish};
use crate::tables::{FinishReason, responses};

/// How a server turns a response's ids into its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Together with the prompt's: the text follows the prompt's text.
    Behind,
    /// Alone: a tokenizer may drop the space at the text's beginning.
    Alone,
}

impl ServerJob<'_> {
    /// The row of a response. Without ids from the server, its text is tokenized.
    pub(super) fn response(&self, item: &Item, completion: Completion, decoding: Decoding) -> Result<responses::Row, OperatorError> {
        let prompt = &self.prompts[item.prompt];
        let prompt_ids = self.prompt_ids(item)?;
        let tokenizer = &self.checkpoint.tokenizer;
        let mut ids = match &completion.token_ids {
            Some(ids) => ids.clone(),
            None if self.stop.is_some() => {
                let problem = "expected the response's token ids, found none; without them the end by a stop string is not known";
                return Err(OperatorError::Failed(problem.to_string()));
            }
            None => self.ids_of_text(item, &completion, decoding)?,
        };
        let vocabulary = self.checkpoint.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < vocabulary)) {
            return Err(OperatorError::Failed(format!(
                "expected token ids below {vocabulary}, found {id}; the server serves another model"
            )));
        }
        let given = ids.len();
        let is_end = |id: &i32| self.checkpoint.generation.eos_token_ids.contains(id);
        if let Some(at) = ids.iter().position(is_end).filter(|at| at + 1 < ids.len()) {
            let problem = format!(
                "expected the response to end at its end token, token {} of {}, found more; the server does not know stop_token_ids",
                at + 1,
                ids.len()
            );
            return Err(OperatorError::Failed(problem));
        }
        let cut = self.cut(prompt_ids, &ids)?;
        if let (Some(string), "") = (&completion.stop_string, cut.as_str()) {
            let problem = format!("expected the tokens of the stop string {string:?} at the response's end, found others");
            return Err(OperatorError::Failed(problem));
        }
        if completion.finish == Finish::Stop && cut.is_empty() && !ids.last().is_some_and(is_end) {
            let end = self.checkpoint.end_token(&prompt.content);
            let problem = "the response stopped, but the policy has no eos_token_id to stop by";
            ids.push(end.ok_or_else(|| OperatorError::Failed(problem.to_string()))?);
        }
        let least = self.settings.min_new_tokens as usize;
        if completion.finish == Finish::Stop && least > 0 && ids.len() <= least {
            let problem = format!("expected more than {least} tokens, found {}; the server does not know min_tokens", ids.len());
            return Err(OperatorError::Failed(problem));
        }
        let logprobs = completion.logprobs.filter(|logprobs| self.samples_all() && logprobs.len() == ids.len() && given == ids.len());
        let text = without_cut(response_text(tokenizer, prompt_ids, &ids)?, &cut)?;
        let mut row = self.row(item.prompt, item.response_index)?;
        row.prompt_token_count = signed(prompt_ids.len(), PLACE)?;
        row.token_ids = [prompt_ids, &ids].concat();
        row.text = text;
        row.finish_reason = if completion.finish == Finish::Stop { FinishReason::Stop } else { FinishReason::Length };
        row.logprob = logprobs.as_ref().map(|logprobs| logprobs.iter().sum::<f64>()).filter(|sum| sum.is_finite());
        if row.logprob.is_some() {
            let of_tokens: Vec<f32> = logprobs.iter().flatten().map(|logprob| *logprob as f32).collect();
            // A number that no f32 holds is no logprob of a token.
            row.token_logprobs = Some(of_tokens).filter(|of_tokens| of_tokens.iter().all(|logprob| logprob.is_finite()));
        }
        Ok(row)
    }

    /// The ids of a response's text. A text longer than it may be, or with the prompt before it, is
    /// an error.
    fn ids_of_text(&self, item: &Item, completion: &Completion, decoding: Decoding) -> Result<Vec<i32>, OperatorError> {
        let prompt_ids = self.prompt_ids(item)?;
        let ids = self.tokenize(item, &completion.text, decoding)?;
        let count = ids.len();
        let (text, _) = self.checkpoint.prompt_text(&self.prompts[item.prompt].content)?;
        let most = self.most_tokens(prompt_ids);
        let is_repeated = match completion.token_count {
            // Sampled tokens may be other ones than the tokenizer's for the same text, and their
            // number a little different.
            Some(counted) => count > counted + prompt_ids.len() / 2,
            None => count > most,
        };
        if is_repeated && completion.text.starts_with(&text) {
            let problem = "expected the response alone, found the prompt before it; the server repeats prompts in its answers";
            return Err(OperatorError::Failed(problem.to_string()));
        }
        if completion.token_count.is_none() && count > most {
            return Err(OperatorError::Failed(format!(
                "expected at most {most} tokens, found a text of {count}; the server does not know max_tokens"
            )));
        }
        Ok(ids)
    }

    /// The ids of a text behind an item's prompt; none of an empty text.
    pub(super) fn tokenize(&self, item: &Item, text: &str, decoding: Decoding) -> Result<Vec<i32>, OperatorError> {
        let tokenizer = &self.checkpoint.tokenizer;
        let (prompt, special) = self.checkpoint.prompt_text(&self.prompts[item.prompt].content)?;
        match decoding {
            Decoding::Behind => {
                let pair = tokenizer.encode_pair(&prompt, &format!("{prompt}{text}"), special)?;
                let problem = || OperatorError::internal(PLACE, "a response tokenized with its prompt is shorter than the prompt");
                Ok(pair.token_ids.get(pair.prompt_token_count..).ok_or_else(problem)?.to_vec())
            }
            Decoding::Alone if text.is_empty() => Ok(Vec::new()),
            Decoding::Alone => Ok(tokenizer.encode(text, crate::model::SpecialTokens::Written)?),
        }
    }

    /// Whether the sampled distribution is the model's own, of which servers give logprobs.
    fn samples_all(&self) -> bool {
        let Generate { temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, min_new_tokens, .. } = self.settings;
        let unchanged = [(temperature, 1.0), (top_p, 1.0), (min_p, 0.0), (repetition_penalty, 1.0), (presence_penalty, 0.0)];
        top_k.is_none() && *min_new_tokens == 0 && unchanged.iter().all(|(setting, neutral)| **setting == *neutral)
    }

    /// The end of the response's text from the stop string on that its last token completes; empty
    /// without one.
    fn cut(&self, prompt_ids: &[i32], ids: &[i32]) -> Result<String, OperatorError> {
        let Some(stop) = &self.stop else { return Ok(String::new()) };
        let mut text = stop.behind(prompt_ids);
        for (at, id) in ids.iter().enumerate() {
            let is_end = self.checkpoint.generation.eos_token_ids.contains(id);
            if let Some(cut) = if is_end { None } else { text.push(*id)? } {
                if at + 1 < ids.len() {
                    let problem =
                        format!("expected the response to end at token {}, found {}; the server does not know `stop`", at + 1, ids.len());
                    return Err(OperatorError::Failed(problem));
                }
                return Ok(cut);
            }
        }
        Ok(String::new())
    }
}
