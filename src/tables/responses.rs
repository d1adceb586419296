//! Responses: sampled from a policy. Token ids are stored, so text is never tokenized again.

use arrow::array::{ArrayRef, ListArray, RecordBatch};

use super::cell::{Cell, FinishReason};
use super::check::{at_least, finite, not_empty};
use super::columns::column;
use super::error::TableError;

table! {
    Responses, version 3, key [prompt_id, sampled_iteration, response_index];
    /// One response to one prompt.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// The iteration it was sampled in.
        pub sampled_iteration: i32,
        /// Its number among the prompt's responses of that iteration, from 0.
        pub response_index: i32,
        /// The prompt's ids, then the response's. An end-of-sequence id at the end was sampled;
        /// none is appended.
        pub token_ids: Vec<i32>,
        /// How many of `token_ids` are the prompt's.
        pub prompt_token_count: i32,
        /// The response as text, without special tokens.
        pub text: String,
        /// The reason why it ended.
        pub finish_reason: FinishReason,
        /// The sum over the response's tokens under the sampling distribution, in nats. Null for an
        /// error, and for a server: it gives none, or that of its model before temperature and
        /// cuts.
        pub logprob: Option<f64>,
        /// The logprob of each of the response's tokens, in nats; their sum is `logprob`. Null
        /// where that is null.
        pub token_logprobs: Option<Vec<f32>>,
        /// The fingerprint of the policy that sampled it.
        pub policy_fingerprint: String,
        /// The error. Not null exactly if `finish_reason` is `error`.
        pub error: Option<String>,
    }
}

impl View<'_> {
    /// Consistent counts, ids from 0, finite logprobs if any, and an error exactly if
    /// `finish_reason` is `error`.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        at_least("sampled_iteration", 0, self.sampled_iteration)?;
        at_least("response_index", 0, self.response_index)?;
        at_least("prompt_token_count", 0, self.prompt_token_count)?;
        let count = self.token_ids.len();
        if usize::try_from(self.prompt_token_count).is_ok_and(|prompt_count| prompt_count > count) {
            return Err(format!("prompt_token_count: expected at most the {count} of token_ids, found {}", self.prompt_token_count));
        }
        if let Some(id) = self.token_ids.iter().find(|id| **id < 0) {
            return Err(format!("token_ids: expected 0 or more, found {id}"));
        }
        self.logprob.map_or(Ok(()), |logprob| finite("logprob", logprob))?;
        if let Some(logprobs) = self.token_logprobs {
            let tokens = count - usize::try_from(self.prompt_token_count).unwrap_or(count);
            if self.logprob.is_none() || logprobs.len() != tokens {
                let sum = if self.logprob.is_some() { "" } else { " without logprob" };
                return Err(format!("token_logprobs: expected {tokens}, one a token of the response, found {}{sum}", logprobs.len()));
            }
            logprobs.iter().try_for_each(|logprob| finite("token_logprobs", f64::from(*logprob)))?;
        }
        match (self.finish_reason, &self.error) {
            (FinishReason::Error, None) => Err("error: expected a reason because finish_reason is error, found null".to_string()),
            (FinishReason::Stop | FinishReason::Length, Some(error)) => {
                Err(format!("error: expected null because finish_reason is {}, found {error:?}", self.finish_reason))
            }
            _ => Ok(()),
        }
    }
}

/// The token ids of all rows (prompt, then response), without a copy: values are Int32 without
/// nulls.
///
/// # Errors
/// There is no such column, or its type is another.
pub fn token_ids(batch: &RecordBatch) -> Result<&ListArray, TableError> {
    column(batch, "token_ids")
}

/// The column `token_logprobs` of these responses.
pub fn token_logprobs(responses: &[Option<Vec<f32>>]) -> ArrayRef {
    Cell::array(responses.iter().map(Some))
}
