//! Rewards: the scores of responses. They are comparable within a prompt.

use std::collections::BTreeMap;

use super::check::{at_least, finite, finite_or_null, not_empty};

table! {
    Rewards, version 1, key [prompt_id, sampled_iteration, response_index];
    /// The reward of one response.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// The iteration the response was sampled in.
        pub sampled_iteration: i32,
        /// Its number among the prompt's responses of that iteration, from 0.
        pub response_index: i32,
        /// The reward: higher is better. Null exactly if there is an `error`.
        pub reward: Option<f64>,
        /// The fingerprint of the reward that scored it.
        pub reward_fingerprint: String,
        /// The terms of a weighted sum, by name.
        pub components: Option<BTreeMap<String, f64>>,
        /// The reason why there is no reward.
        pub error: Option<String>,
    }
}

impl View<'_> {
    /// Either a finite reward or an error; finite components.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        at_least("sampled_iteration", 0, self.sampled_iteration)?;
        at_least("response_index", 0, self.response_index)?;
        finite_or_null("reward", self.reward)?;
        self.components.iter().flatten().try_for_each(|(name, value)| finite(&format!("components[{name}]"), *value))?;
        match (self.reward, &self.error) {
            (None, None) => Err("expected a reward or an error, found neither".to_string()),
            (Some(reward), Some(error)) => Err(format!("expected a reward or an error, found both: {reward} and {error:?}")),
            _ => Ok(()),
        }
    }
}
