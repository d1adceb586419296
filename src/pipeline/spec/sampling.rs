//! The operators that sample responses: generate and evaluate.
//!
//! Knows what a user may write about them, not how tokens are drawn.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::non_finite::NonFinite;
use crate::pipeline::position::Name;
use crate::pipeline::range;

/// New responses of a policy to prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The model that answers.
    pub policy: Name,
    /// The prompts to answer.
    pub prompts: Name,
    /// The selection that says which prompts; all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Name>,
    /// Responses for each prompt. The paper's: 2.
    #[serde(default = "pair_of_responses", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub responses_per_prompt: u32,
    /// The longest response, in tokens. The paper's: 512.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: u32,
    /// The longest prompt, in tokens. The paper's: 512.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_prompt_tokens: u32,
    /// What logits are divided by; 0 takes the most likely token. The paper's: 1.0.
    #[serde(default = "one", deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Sample from the smallest set of tokens with this much probability, above 0 and at most 1. The paper's: 0.9.
    #[serde(default = "one", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
    /// Sample from this many of the most likely tokens; none for all.
    #[serde(default, deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    pub top_k: Option<u32>,
    /// A server that samples; this machine when left out. The policy's tokenizer and chat template are used all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
}

/// A policy against a baseline on prompts it was not trained on: reward, outcome (win, tie, loss), length and over-optimisation.
/// Its responses are always sampled on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The model to evaluate.
    pub policy: Name,
    /// The model to compare with; its responses are made once for all iterations.
    pub baseline: Name,
    /// Held-out prompts.
    pub prompts: Name,
    /// The reward, one of `inputs`.
    pub reward: Name,
    /// The model under which the responses' mean NLL is taken. When left out: what the policy starts from, else the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Name>,
    /// Responses for each prompt, of either model.
    #[serde(default = "single_response", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub responses_per_prompt: u32,
    /// The longest response, in tokens. The paper's: 512.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: u32,
    /// The longest prompt, in tokens. The paper's: 512.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_prompt_tokens: u32,
    /// What logits are divided by; 0 takes the most likely token.
    #[serde(default = "one", deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Sample from the smallest set of tokens with this much probability, above 0 and at most 1.
    #[serde(default = "one", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
    /// Sample from this many of the most likely tokens; none for all.
    #[serde(default, deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    pub top_k: Option<u32>,
    /// What happens where a reward is NaN, infinite or null. `skip` leaves such responses out, and counts them.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
}

fn pair_of_responses() -> u32 {
    2
}

fn single_response() -> u32 {
    1
}

fn token_limit() -> u32 {
    512
}

fn one() -> f64 {
    1.0
}
