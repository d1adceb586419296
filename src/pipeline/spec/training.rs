//! The operators that make models: train, sft and reward_model.
//!
//! Knows what a user may write about them, not how gradients are taken.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::held_out::HeldOut;
use super::lora::Lora;
use super::loss::{Loss, Wpo};
use super::non_finite::NonFinite;
use crate::pipeline::position::Name;
use crate::pipeline::range;

/// A policy trained on pairs, with a fresh optimizer and schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The model whose weights training starts from.
    pub from: Name,
    /// The reference of the loss. Never implied: the paper leaves open whether it is the last iteration's policy or the initial one.
    pub reference: Name,
    /// The pairs to train on: what `pair` makes, or a table of preferences (`prompt` or `messages`, `chosen`, `rejected`, and maybe
    /// `chosen_score` and `rejected_score`, `reward_gap`, `weight`), for training on given pairs.
    pub pairs: Name,
    /// The loss.
    #[serde(default)]
    pub loss: Loss,
    /// Multiplies each pair's weight by how much the policy in training would write its responses itself (2406.11827), `{}` for the defaults; for
    /// pools with responses of older policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wpo: Option<Wpo>,
    /// The loss's β, above 0. The paper's: 0.1.
    #[serde(default = "tenth", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta: f64,
    /// The highest learning rate, above 0. The paper's: 5e-7.
    #[serde(default = "paper_learning_rate", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The optimizer. The paper's: `rmsprop`.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How the learning rate goes on after the warm-up. The paper leaves it open.
    #[serde(default)]
    pub schedule: Schedule,
    /// The share of steps in which the learning rate rises from 0, at least 0 and below 1. The paper's: 0.1.
    #[serde(default = "tenth", deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub warmup_ratio: f64,
    /// Passes over the pairs.
    #[serde(default = "once", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Pairs in one optimizer step. The paper's: 128.
    #[serde(default = "paper_batch_size", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// The norm that longer gradients are scaled down to; none leaves them. The paper leaves it open.
    #[serde(default = "unit_norm", deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: Option<f64>,
    /// What happens where a step's loss or gradient is NaN or infinite. `skip` leaves such steps out, and counts them; ten in a row, or an epoch, fail.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
    /// Train a low-rank adapter instead of the weights, `{}` for its defaults; the weights themselves when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

/// A policy trained to imitate demonstrations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// The model that gives the architecture and the tokenizer, and the weights unless `initialize` is `random`.
    pub from: Name,
    /// Where the first weights come from.
    #[serde(default)]
    pub initialize: Initialize,
    /// Prompts, each with a response to imitate.
    pub demonstrations: Name,
    /// The column of `demonstrations` that holds the response.
    #[serde(default = "response_column")]
    pub response: String,
    /// The longest prompt, in tokens.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_prompt_tokens: u32,
    /// The longest response, in tokens.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_response_tokens: u32,
    /// The highest learning rate, above 0.
    #[serde(default = "sft_learning_rate", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The optimizer.
    #[serde(default = "adamw")]
    pub optimizer: Optimizer,
    /// How the learning rate goes on after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// The share of steps in which the learning rate rises from 0, at least 0 and below 1.
    #[serde(default = "tenth", deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub warmup_ratio: f64,
    /// Passes over the demonstrations.
    #[serde(default = "once", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Demonstrations in one optimizer step.
    #[serde(default = "sft_batch_size", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// The norm that longer gradients are scaled down to; none leaves them.
    #[serde(default = "unit_norm", deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: Option<f64>,
    /// What happens where a step's loss or gradient is NaN or infinite. `skip` leaves such steps out, and counts them; ten in a row, or an epoch, fail.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
    /// Train a low-rank adapter instead of the weights, `{}` for its defaults; the weights themselves when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

/// A reward model, trained on preferences: a policy whose head is replaced by a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardModel {
    /// The model whose weights training starts from: a policy, which gets a new score head, or a reward model.
    pub from: Name,
    /// Prompts, each with a response to prefer (`chosen`) and one to avoid (`rejected`).
    pub preferences: Name,
    /// What the model is tested on and never trained on: a share of the prompts, drawn from the seed, or a table of preferences.
    #[serde(default)]
    pub held_out: HeldOut,
    /// The longest conversation, in tokens: preferences with a longer one are left out, and counted. The model's own limit when it is
    /// lower.
    #[serde(default = "conversation_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_tokens: u32,
    /// Whether the rewards should differ by more than the preference's reward_gap, where the table has it.
    #[serde(default)]
    pub margin: bool,
    /// What the mean square of the sum of both rewards counts in the loss, which keeps rewards around 0; none leaves it out.
    #[serde(default, deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub center_rewards_coefficient: Option<f64>,
    /// The highest learning rate, above 0.
    #[serde(default = "reward_model_learning_rate", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// The optimizer.
    #[serde(default = "adamw")]
    pub optimizer: Optimizer,
    /// How the learning rate goes on after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// The share of steps in which the learning rate rises from 0, at least 0 and below 1.
    #[serde(default = "tenth", deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub warmup_ratio: f64,
    /// Passes over the preferences.
    #[serde(default = "once", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Preferences in one optimizer step.
    #[serde(default = "sft_batch_size", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// The norm that longer gradients are scaled down to; none leaves them.
    #[serde(default = "unit_norm", deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_gradient_norm: Option<f64>,
    /// What happens where a step's loss or gradient is NaN or infinite. `skip` leaves such steps out, and counts them; ten in a row, or an epoch, fail.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
}

impl RewardModel {
    /// Whether there is anything to test the model on.
    pub fn has_held_out(&self) -> bool {
        self.held_out != HeldOut::Share(0.0)
    }
}

/// The test of a reward model: which preferences, and how long they may be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rank {
    /// What is held out.
    pub held_out: HeldOut,
    /// The longest conversation, in tokens.
    pub max_tokens: u32,
}

/// The optimizer: its name, or its name with settings, `{ adamw: { weight_decay: 0.01 } }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = or_bare_name)]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    Adamw(Adamw),
    /// RMSprop without momentum.
    Rmsprop(Rmsprop),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Rmsprop(Rmsprop::default())
    }
}

/// Adam with decoupled weight decay; the defaults are PyTorch's, but for no weight decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adamw {
    /// The decay rates of the first and second moments, each at least 0 and below 1.
    #[serde(deserialize_with = "range::betas")]
    pub betas: [f64; 2],
    /// Added to the denominator, above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// The share of each weight, times the learning rate, taken off every step.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

impl Default for Adamw {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// RMSprop without momentum; the defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rmsprop {
    /// The decay rate of the mean square, at least 0 and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub alpha: f64,
    /// Added to the denominator, above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// The multiple of each weight added to its gradient.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

impl Default for Rmsprop {
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 on a line.
    #[default]
    Linear,
    /// It falls to 0 on half a cosine.
    Cosine,
}

/// Where the first weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initialize {
    /// The checkpoint's own.
    #[default]
    Checkpoint,
    /// Drawn from the seed.
    Random,
}

/// Lets the schema accept `optimizer: rmsprop` beside the long form.
fn or_bare_name(schema: &mut Schema) {
    if let Some(forms) = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut()) {
        forms.push(serde_json::json!({ "type": "string", "enum": ["adamw", "rmsprop"] }));
    }
}

fn tenth() -> f64 {
    0.1
}

fn paper_learning_rate() -> f64 {
    5e-7
}

fn sft_learning_rate() -> f64 {
    2e-5
}

fn once() -> u32 {
    1
}

fn paper_batch_size() -> u32 {
    128
}

fn sft_batch_size() -> u32 {
    32
}

fn token_limit() -> u32 {
    512
}

fn conversation_limit() -> u32 {
    1024
}

fn reward_model_learning_rate() -> f64 {
    1e-5
}

fn unit_norm() -> Option<f64> {
    Some(1.0)
}

fn response_column() -> String {
    "response".to_string()
}

fn adamw() -> Optimizer {
    Optimizer::Adamw(Adamw::default())
}
