//! `reward_model`: a reward model trained on preferences.
//!
//! Knows the keys of the operator, not how gradients are computed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::held_out::HeldOut;
use super::hyperparameters::{Hyperparameters, Schedule, epochs, max_gradient_norm, warmup_ratio, with_hyperparameters};
use super::non_finite::NonFinite;
use super::optimizer::{Adamw, Optimizer};
use crate::pipeline::position::Name;
use crate::pipeline::range;

with_hyperparameters! {
    /// A reward model, trained on preferences: a policy with a score in place of its language head.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct RewardModel {
        /// The model to start training from: a policy, with a new score head, or a reward model.
        pub from: Name,
        /// A table of prompts, each with a response to prefer (`chosen`) and one to avoid
        /// (`rejected`).
        pub preferences: Name,
        /// The preferences to test on, never trained on: a share of the prompts, at least 0 and
        /// below 1, drawn from the seed; or a table of preferences.
        #[serde(default)]
        pub held_out: HeldOut,
        /// The longest conversation, in tokens, at least 1. Preferences with a longer one are left
        /// out and counted. A lower limit of the model wins.
        #[serde(default = "max_tokens", deserialize_with = "range::count")]
        #[schemars(range(min = 1))]
        pub max_tokens: u32,
        /// Whether the two rewards should differ by more than the `reward_gap` of the preference.
        /// Needs a table with this column.
        #[serde(default)]
        pub margin: bool,
        /// The weight of the centering term in the loss, above 0: the mean square of the sum of
        /// both rewards. It keeps rewards around 0. `null`, the default, for no such term.
        #[serde(default, deserialize_with = "range::optional_positive")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        pub center_rewards_coefficient: Option<f64>,
    }
}

impl RewardModel {
    /// Whether any preferences are held out.
    pub fn has_held_out(&self) -> bool {
        self.held_out != HeldOut::Share(0.0)
    }
}

fn max_tokens() -> u32 {
    1024
}

fn learning_rate() -> f64 {
    1e-5
}

fn optimizer() -> Optimizer {
    Optimizer::Adamw(Adamw::default())
}

fn batch_size() -> u32 {
    32
}
