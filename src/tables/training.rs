//! Training: one row an optimizer update. Timings are in the journal: the bytes here are
//! reproducible.

use super::check::{at_least, finite, finite_or_null};

/// The table's name is the model's name, followed by this.
pub const SUFFIX: &str = "_training";

/// The file of a checkpoint with the table's rows so far.
pub const CHECKPOINT_FILE: &str = "training.parquet";

table! {
    Training, version 1, key [step];
    /// One update. Columns about pairs are null in supervised training.
    pub struct Row {
        /// The update's number within the iteration, from 1.
        pub step: i64,
        /// The pass over the pairs it belongs to, from 1.
        pub epoch: i32,
        /// The mean loss of the batch before the update.
        pub loss: f64,
        /// The mean reward difference, chosen minus rejected. For a policy it is beta times the
        /// loss's implicit reward difference; for a reward model it is that of its rewards.
        pub reward_margin: Option<f64>,
        /// The share of pairs whose reward_margin is above 0.
        pub accuracy: Option<f64>,
        /// The mean over pairs of the chosen response's logprob under the policy, in nats.
        pub logprob_chosen: Option<f64>,
        /// The mean over pairs of the rejected response's logprob under the policy, in nats.
        pub logprob_rejected: Option<f64>,
        /// The estimate of the divergence from the reference, in nats.
        pub kl: Option<f64>,
        /// The Euclidean norm of the gradient before clipping.
        pub gradient_norm: f64,
        /// The optimizer's learning rate in this update.
        pub learning_rate: f64,
        /// Tokens in the batch, without padding.
        pub tokens: i64,
    }
}

impl View<'_> {
    /// Steps and epochs from 0, finite numbers, an accuracy between 0 and 1.
    fn check(&self) -> Result<(), String> {
        at_least("step", 0, self.step)?;
        at_least("epoch", 0, self.epoch)?;
        finite("loss", self.loss)?;
        finite_or_null("reward_margin", self.reward_margin)?;
        if let Some(accuracy) = self.accuracy.filter(|accuracy| !(0.0..=1.0).contains(accuracy)) {
            return Err(format!("accuracy: expected a share between 0 and 1, found {accuracy}"));
        }
        finite_or_null("logprob_chosen", self.logprob_chosen)?;
        finite_or_null("logprob_rejected", self.logprob_rejected)?;
        finite_or_null("kl", self.kl)?;
        finite("gradient_norm", self.gradient_norm)?;
        finite("learning_rate", self.learning_rate)?;
        at_least("gradient_norm", 0.0, self.gradient_norm)?;
        at_least("learning_rate", 0.0, self.learning_rate)?;
        at_least("tokens", 0, self.tokens)
    }
}
