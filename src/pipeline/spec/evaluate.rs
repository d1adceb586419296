//! `evaluate`: a policy compared with a baseline.
//!
//! Knows the keys of the operator, not how outcomes are counted. The settings of sampling are
//! written out as in `generate`: flattened into both, they would lose their positions in errors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::baselines::Baselines;
use super::engine::Engine;
use super::generate::{is_none, is_one, is_zero, stop_strings};
use super::judge::{self, Judge};
use super::non_finite::NonFinite;
use super::precision::Precision;
use crate::pipeline::position::{At, Name};
use crate::pipeline::range;

/// A policy compared with a baseline on held-out prompts: reward, outcome (win, tie, loss), length
/// and over-optimization, and a judge's verdicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The model to evaluate.
    pub policy: Name,
    /// The model to compare with, or a list of several. Responses of inputs and of nodes outside
    /// `iterate` are sampled once for all iterations; `policy[t-1]` is the last iteration's model.
    /// A table of texts (`response`, with `prompt_id`, `prompt` or `messages`) is a baseline too.
    pub baseline: Baselines,
    /// Held-out prompts.
    pub prompts: Name,
    /// The reward: a `reward` of `inputs`, or a `reward_model` node.
    pub reward: Name,
    /// A judge that compares each response with the baseline's, in both orders. By default none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "judge::of_pairs")]
    pub judge: Option<Box<Judge>>,
    /// A server to sample on, as in `generate`. By default this machine samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The model for the mean NLL of the responses. By default the model at the start of the
    /// iterations, or else the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Name>,
    /// Responses of each model to each prompt, at least 1.
    #[serde(default = "responses_per_prompt", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub responses_per_prompt: u32,
    /// The longest response, in tokens, at least 1. The paper's: 512.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: u32,
    /// The longest prompt, in tokens, at least 1. The paper's: 512.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_prompt_tokens: u32,
    /// The divisor of the logits, at least 0. 0 takes the most likely token.
    #[serde(default = "one", deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Samples from the smallest set of tokens with this much probability, above 0 and at most 1.
    /// 1 is all tokens.
    #[serde(default = "one", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
    /// Samples from this many of the most likely tokens, at least 1. `null`, the default, is all
    /// tokens.
    #[serde(default, deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    pub top_k: Option<u32>,
    /// Drops tokens with less than this share of the most likely token's probability, from 0 to 1,
    /// after `top_k` and `top_p`. 0, the default, drops none.
    #[serde(default, deserialize_with = "range::from_0_to_1", skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: f64,
    /// Divides the positive logits of tokens that are in the prompt or the response already, and
    /// multiplies the negative ones; above 0. 1, the default, changes nothing.
    #[serde(default = "one", deserialize_with = "range::positive", skip_serializing_if = "is_one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub repetition_penalty: f64,
    /// Lowers the logits of tokens that are in the response already, from -2 to 2. 0, the default,
    /// changes nothing.
    #[serde(default, deserialize_with = "range::from_minus_2_to_2", skip_serializing_if = "is_zero")]
    #[schemars(range(min = -2.0, max = 2.0))]
    pub presence_penalty: f64,
    /// No response ends before it has this many tokens, at most `max_new_tokens`. 0, the default,
    /// lets it end at once.
    #[serde(default, skip_serializing_if = "is_none")]
    pub min_new_tokens: u32,
    /// Texts that end a response, as in vLLM: the tokens go up to the one that completes the text,
    /// the response's text ends before it.
    #[serde(default, deserialize_with = "stop_strings", skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The reaction to a reward that is NaN, infinite or null. `stop` fails the node; `skip` leaves
    /// the response out and counts it.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
    /// Evaluates after every iteration with a multiple of this number, and after the last one: `2`
    /// halves the cost, a number of at least the iterations evaluates once. 1, the default, is
    /// after all.
    #[serde(default = "each", deserialize_with = "range::count", skip_serializing_if = "is_each")]
    #[schemars(range(min = 1))]
    pub every: u32,
    /// The precision of all models: policy, baseline, reward model and initial model. By default
    /// that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<At<Precision>>,
}

/// The default of `every`.
pub(super) fn each() -> u32 {
    1
}

/// Whether `every` is its default.
pub(super) fn is_each(every: &u32) -> bool {
    *every == each()
}

fn responses_per_prompt() -> u32 {
    1
}

fn token_limit() -> u32 {
    512
}

fn one() -> f64 {
    1.0
}
