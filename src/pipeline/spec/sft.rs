//! `sft`: a policy trained to imitate demonstrations.
//!
//! Knows the keys of the operator, not how gradients are computed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hyperparameters::{Hyperparameters, Schedule, epochs, max_gradient_norm, warmup_ratio, with_hyperparameters};
use super::lora::Lora;
use super::non_finite::NonFinite;
use super::optimizer::{Adamw, Optimizer};
use crate::pipeline::position::Name;
use crate::pipeline::range;

with_hyperparameters! {
    /// A policy trained to imitate demonstrations (supervised fine-tuning).
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct Sft {
        /// The model to start from: its architecture, its tokenizer and, unless `initialize` is
        /// `random`, its weights.
        pub from: Name,
        /// The source of the first weights.
        #[serde(default)]
        pub initialize: Initialize,
        /// A table of prompts, each with a response to imitate.
        pub demonstrations: Name,
        /// The column of `demonstrations` with the response.
        #[serde(default = "response")]
        pub response: String,
        /// The messages of a conversation to imitate. Messages with a `weight` or `train` of 0 are
        /// never trained on.
        #[serde(default)]
        pub train_on: TrainOn,
        /// The longest prompt, in tokens, at least 1.
        #[serde(default = "token_limit", deserialize_with = "range::count")]
        #[schemars(range(min = 1))]
        pub max_prompt_tokens: u32,
        /// The longest response, in tokens, at least 1.
        #[serde(default = "token_limit", deserialize_with = "range::count")]
        #[schemars(range(min = 1))]
        pub max_response_tokens: u32,
    }
    more {
        /// Trains a low-rank adapter instead of all weights. `{}` for the default settings; off by
        /// default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub lora: Option<Lora>,
    }
}

/// The source of the first weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initialize {
    /// The checkpoint.
    #[default]
    Checkpoint,
    /// Random numbers from the seed.
    Random,
}

/// The messages of a conversation to imitate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// The response: the last message of the assistant.
    #[default]
    Last,
    /// Every message of the assistant. Each is an example of its own, behind all messages before it
    /// as the chat template writes them for a prompt, so `batch_size` counts messages.
    AllAssistant,
}

fn response() -> String {
    "response".to_string()
}

fn token_limit() -> u32 {
    512
}

fn learning_rate() -> f64 {
    2e-5
}

fn optimizer() -> Optimizer {
    Optimizer::Adamw(Adamw::default())
}

fn batch_size() -> u32 {
    32
}
