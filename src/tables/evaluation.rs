//! Evaluation: the policy against the baseline, one row a held-out prompt.

use super::cell::Outcome;
use super::check::{at_least, finite, not_empty};

table! {
    Evaluation, version 1, key [prompt_id];
    /// One held-out prompt. With several responses, rewards and token counts are means, and the
    /// texts are those of the first.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// The reward of the policy's response.
        pub reward: f64,
        /// The reward of the baseline's response.
        pub baseline_reward: f64,
        /// The policy's reward compared with the baseline's: `win`, `tie` or `loss`.
        pub outcome: Outcome,
        /// The policy's response.
        pub text: String,
        /// The baseline's response.
        pub baseline_text: String,
        /// The length of the policy's response in tokens.
        pub token_count: f64,
        /// The share of the policy's responses cut by the length limit, between 0 and 1.
        pub truncated: f64,
        /// Nats per token of the policy's response under the initial policy. Its rise is the first
        /// sign of over-optimization.
        pub nll_initial: f64,
        /// The same of the baseline's response, for comparison.
        pub baseline_nll_initial: f64,
    }
}

impl View<'_> {
    /// Finite numbers, a share between 0 and 1.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        finite("reward", self.reward)?;
        finite("baseline_reward", self.baseline_reward)?;
        finite("token_count", self.token_count)?;
        at_least("token_count", 0.0, self.token_count)?;
        if !(0.0..=1.0).contains(&self.truncated) {
            return Err(format!("truncated: expected a share between 0 and 1, found {}", self.truncated));
        }
        finite("nll_initial", self.nll_initial)?;
        finite("baseline_nll_initial", self.baseline_nll_initial)
    }
}
