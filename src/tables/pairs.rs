//! Pairs: for each prompt the response to prefer and the one to avoid, with the weight of the loss.

use super::check::{at_least, finite, finite_or_null, not_empty};

table! {
    Pairs, version 1, key [prompt_id];
    /// One pair.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// The iteration the chosen response was sampled in.
        pub chosen_sampled_iteration: i32,
        /// The chosen response's response_index.
        pub chosen_index: i32,
        /// The iteration the rejected response was sampled in.
        pub rejected_sampled_iteration: i32,
        /// The rejected response's response_index.
        pub rejected_index: i32,
        /// The chosen response's reward minus the rejected one's: above 0.
        pub reward_gap: f64,
        /// The factor of the pair's loss.
        pub weight: f64,
        /// The sum over the chosen response's tokens under the reference, in nats. Null until
        /// training has computed it.
        pub reference_logprob_chosen: Option<f64>,
        /// The sum over the rejected response's tokens under the reference, in nats. Null until
        /// training has computed it.
        pub reference_logprob_rejected: Option<f64>,
    }
}

impl View<'_> {
    /// Two different responses, a reward_gap above 0, a weight from 0, finite logprobs (both or
    /// neither).
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        at_least("chosen_sampled_iteration", 0, self.chosen_sampled_iteration)?;
        at_least("chosen_index", 0, self.chosen_index)?;
        at_least("rejected_sampled_iteration", 0, self.rejected_sampled_iteration)?;
        at_least("rejected_index", 0, self.rejected_index)?;
        if (self.chosen_sampled_iteration, self.chosen_index) == (self.rejected_sampled_iteration, self.rejected_index) {
            return Err(format!(
                "expected two responses, found response {} of iteration {} twice",
                self.chosen_index, self.chosen_sampled_iteration
            ));
        }
        finite("reward_gap", self.reward_gap)?;
        if self.reward_gap <= 0.0 {
            return Err(format!("reward_gap: expected more than 0, found {}", self.reward_gap));
        }
        finite("weight", self.weight)?;
        at_least("weight", 0.0, self.weight)?;
        finite_or_null("reference_logprob_chosen", self.reference_logprob_chosen)?;
        finite_or_null("reference_logprob_rejected", self.reference_logprob_rejected)?;
        if self.reference_logprob_chosen.is_some() != self.reference_logprob_rejected.is_some() {
            return Err("expected the reference's logprobs of both responses or of neither, found one".to_string());
        }
        Ok(())
    }
}
