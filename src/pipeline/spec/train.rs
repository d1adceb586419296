//! `train`: a policy trained on pairs.
//!
//! Knows the keys of the operator, not how gradients are computed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hyperparameters::{Hyperparameters, Schedule, epochs, max_gradient_norm, warmup_ratio, with_hyperparameters};
use super::lora::Lora;
use super::loss::{Loss, Wpo};
use super::non_finite::NonFinite;
use super::optimizer::Optimizer;
use super::train_engine::TrainEngine;
use crate::pipeline::position::Name;
use crate::pipeline::range;

with_hyperparameters! {
    /// A policy trained on pairs, with a fresh optimizer and schedule. The defaults are the paper's
    /// (OPTune, 2406.07657): `beta` 0.1, `learning_rate` 5e-7, `optimizer` rmsprop, `warmup_ratio`
    /// 0.1, `batch_size` 128. The paper leaves `schedule` and `max_gradient_norm` open.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct Train {
        /// The model to start training from.
        pub from: Name,
        /// The reference model of the loss. Always explicit: the paper leaves open whether it is
        /// the policy of the previous iteration or the initial policy.
        pub reference: Name,
        /// The pairs to train on: the output of `pair`, or a table of preferences for training on
        /// given pairs. Such a table has the columns `prompt` or `messages`, `chosen` and
        /// `rejected`; optional columns are the scores of both, `reward_gap` or `margin`, and
        /// `weight`.
        pub pairs: Name,
        /// The loss, a name or a name with settings.
        #[serde(default)]
        pub loss: Loss,
        /// WPO (2406.11827): multiplies the weight of each pair by the probability of its responses
        /// under the policy in training. Useful for pools with responses of older policies. `{}`
        /// for the default settings; off by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wpo: Option<Wpo>,
        /// α of optimism (SELM, 2405.19332), above 0: adds α·β times the mean log ratio between
        /// policy and reference of both responses to the loss of a pair, so that the policy leaves
        /// its own well-known responses. The paper's are 0.0001 to 0.005. `null`, the default, for
        /// none.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_positive")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        pub optimism: Option<f64>,
        /// β of the loss, above 0.
        #[serde(default = "beta", deserialize_with = "range::positive")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        pub beta: f64,
    }
    more {
        /// Trains a low-rank adapter instead of all weights. `{}` for the default settings; off by
        /// default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub lora: Option<Lora>,
        /// Trains by a program of your own, `{ command: [accelerate, launch, …] }`; by default this
        /// program trains. The node keeps its inputs, and its settings are given to the program.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub engine: Option<Box<TrainEngine>>,
    }
}

fn beta() -> f64 {
    0.1
}

fn learning_rate() -> f64 {
    5e-7
}

fn optimizer() -> Optimizer {
    Optimizer::Rmsprop(Default::default())
}

fn batch_size() -> u32 {
    128
}
