//! Answers: of a model to the items of a benchmark, before they are graded.

use super::cell::FinishReason;
use super::check::{at_least, finite, not_empty};

table! {
    Answers, version 1, key [task, item];
    /// The answer to one item of one task.
    pub struct Row {
        /// The task.
        pub task: String,
        /// The item's row in the table of items, from 0.
        pub item: i64,
        /// The item's id.
        pub item_id: String,
        /// Multiple choice: the logprob of each choice behind the question, in nats. Null for a
        /// generated answer.
        pub logprobs: Option<Vec<f64>>,
        /// A generated answer: the ids of the question, then those of the answer. Empty for
        /// multiple choice.
        pub token_ids: Vec<i32>,
        /// How many of `token_ids` are the question's.
        pub prompt_token_count: i32,
        /// The generated answer, up to the text that ended it.
        pub text: String,
        /// The reason why a generated answer ended. Null for multiple choice.
        pub finish_reason: Option<FinishReason>,
        /// How many tokens were cut off the start of the question, to fit into the model.
        pub cut_tokens: i32,
    }
}

impl View<'_> {
    /// Either at least two finite logprobs, or a generated answer with its reason.
    fn check(&self) -> Result<(), String> {
        not_empty("task", self.task)?;
        at_least("item", 0, self.item)?;
        at_least("prompt_token_count", 0, self.prompt_token_count)?;
        at_least("cut_tokens", 0, self.cut_tokens)?;
        match (&self.logprobs, &self.finish_reason) {
            (Some(logprobs), None) => {
                at_least("logprobs", 2, logprobs.len())?;
                logprobs.iter().try_for_each(|logprob| finite("logprobs", *logprob))
            }
            (None, Some(FinishReason::Error)) => Err("finish_reason: expected stop or length, found error".to_string()),
            (None, Some(_)) => {
                let count = self.token_ids.len();
                if usize::try_from(self.prompt_token_count).is_ok_and(|prompt_count| prompt_count > count) {
                    return Err(format!(
                        "prompt_token_count: expected at most the {count} of token_ids, found {}",
                        self.prompt_token_count
                    ));
                }
                Ok(())
            }
            (Some(_), Some(_)) => Err("expected logprobs or a finish_reason, found both".to_string()),
            (None, None) => Err("expected logprobs or a finish_reason, found neither".to_string()),
        }
    }
}
