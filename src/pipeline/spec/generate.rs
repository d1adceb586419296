//! `generate`: responses of a policy to prompts.
//!
//! Knows the keys of the operator, not how tokens are sampled.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use crate::pipeline::position::Name;
use crate::pipeline::range;

/// New responses of a policy to prompts. The paper samples 2 responses of at most 512 tokens to
/// prompts of at most 512 tokens, with `temperature` 1.0 and `top_p` 0.9.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The model to sample from.
    pub policy: Name,
    /// The prompts to answer.
    pub prompts: Name,
    /// The selection of prompts to answer. By default all prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Name>,
    /// Responses to each prompt, at least 1.
    #[serde(default = "responses_per_prompt", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub responses_per_prompt: u32,
    /// The longest response, in tokens, at least 1.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: u32,
    /// The longest prompt, in tokens, at least 1.
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
    /// A server to sample on, with the tokenizer and chat template of the policy. By default this
    /// machine samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
}

fn responses_per_prompt() -> u32 {
    2
}

fn token_limit() -> u32 {
    512
}

fn one() -> f64 {
    1.0
}
