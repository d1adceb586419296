//! `generate`: responses of a policy to prompts.
//!
//! Knows the keys of the operator, not how tokens are sampled.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::engine::Engine;
use super::precision::Precision;
use super::responses_per_prompt::ResponsesPerPrompt;
use crate::pipeline::position::{At, Name};
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
    /// Responses to each prompt, at least 1. Or first a few and then more to some prompts:
    /// `{ first: 2, then: 6, where: { strategy: expected_gain, ratio: 0.5 } }`. This stands for
    /// further nodes, which `optune plan` lists.
    #[serde(default)]
    pub responses_per_prompt: ResponsesPerPrompt,
    /// The `response_index` of the first response. 0, the default, unless other nodes made the
    /// responses before. A response depends on its index, not on the node.
    #[serde(default, skip_serializing_if = "is_none")]
    pub first_index: u32,
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
    /// The precision of the policy, on this machine only. By default that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<At<Precision>>,
    /// A server to sample on, with the tokenizer and chat template of the policy. By default this
    /// machine samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
}

fn token_limit() -> u32 {
    512
}

fn one() -> f64 {
    1.0
}

/// Whether a number is 0, the default.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// Whether a number is 1, the default.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) fn is_one(number: &f64) -> bool {
    *number == 1.0
}

/// Whether a count is 0, the default.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) fn is_none(count: &u32) -> bool {
    *count == 0
}

/// Texts with at least one character.
pub(super) fn stop_strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let strings = Vec::<String>::deserialize(deserializer)?;
    if strings.iter().any(String::is_empty) {
        return Err(D::Error::custom("expected texts with at least one character, found an empty one"));
    }
    Ok(strings)
}
