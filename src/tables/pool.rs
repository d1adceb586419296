//! The pool: the newest responses of every prompt with their rewards. Texts stay in `responses`:
//! join by prompt_id, sampled_iteration and response_index.

use super::cell::FinishReason;
use super::check::{at_least, finite, not_empty};

table! {
    Pool, version 1, key [prompt_id, response_index, sampled_iteration];
    /// One response, a candidate for pairs.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// Its number among the prompt's responses, from 0.
        pub response_index: i32,
        /// The iteration it was sampled in.
        pub sampled_iteration: i32,
        /// Its reward. Responses without one are not in the pool.
        pub reward: f64,
        /// The response's length in tokens, without the prompt.
        pub token_count: i32,
        /// The reason why it ended.
        pub finish_reason: FinishReason,
    }
}

impl View<'_> {
    /// A finite reward and counts from 0.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        at_least("response_index", 0, self.response_index)?;
        at_least("sampled_iteration", 0, self.sampled_iteration)?;
        finite("reward", self.reward)?;
        at_least("token_count", 0, self.token_count)
    }
}
