//! A judge: a model behind OpenAI's chat API that scores a response, or compares two.
//!
//! Knows the keys and the templates, not the requests or the way answers are read.

mod question;
mod scale;
mod template;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::address::{check_address, check_key_name};
use super::addresses::Addresses;
use super::engine::{Failures, concurrency, retries, timeout};
use crate::pipeline::position::At;
use crate::pipeline::range;

pub use question::{Question, Read};
pub use scale::Scale;
pub use template::JudgeTemplate;

/// A judge: a model behind OpenAI's chat API. Address, key and limits are no part of the
/// fingerprint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The address of the API, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`; or
    /// a list of addresses, of servers with the same model.
    pub openai: Addresses,
    /// The server's name for the judge.
    pub model: At<String>,
    /// The question: the path of a Jinja template, or its text. It reads `prompt`, `messages`,
    /// `reference_answer`, any other column of the prompts, and `response`, or `response_a` and
    /// `response_b` for two. By default one of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<JudgeTemplate>,
    /// The lowest and the highest score, such as `[1, 10]`. Needed for a reward, and for nothing
    /// else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// The way to read the answer. By default `number` for a reward and `choice` for two responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Read>,
    /// The divisor of the judge's logits, at least 0; 0 by default. `null` leaves it to the server.
    #[serde(default = "greedy", deserialize_with = "range::optional_not_negative")]
    #[schemars(range(min = 0.0))]
    pub temperature: Option<f64>,
    /// The longest answer, in tokens, at least 1. By default 1024, and 1 for `logprobs`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u32>,
    /// Requests at the same time, at least 1; of several servers, to each of them.
    #[serde(default = "concurrency", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub concurrency: u32,
    /// The time limit of one request, in seconds, above 0.
    #[serde(default = "timeout", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout_seconds: f64,
    /// Retries of a failed request, with growing waits. 0 for none.
    #[serde(default = "retries")]
    pub retries: u32,
    /// The environment variable with the key of the server. The key itself is never written to
    /// disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<At<String>>,
    /// The reaction to answers that cannot be read and to requests without success after all
    /// retries.
    #[serde(default)]
    pub failures: Failures,
    /// The version of the judge behind the name, in your words. A changed version asks all
    /// questions again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Judge {
    /// The way to read its answer.
    pub fn read(&self, question: Question) -> Read {
        self.read.unwrap_or(question.read())
    }

    /// The longest answer, in tokens.
    pub fn max_tokens(&self, question: Question) -> u32 {
        self.max_tokens.unwrap_or(if self.read(question) == Read::Logprobs { 1 } else { 1024 })
    }

    /// Checks the keys for a question.
    ///
    /// # Errors
    /// The first key that does not fit.
    pub(super) fn check(&self, question: Question) -> Result<(), String> {
        self.openai.iter().try_for_each(check_address)?;
        self.api_key_env.as_ref().map_or(Ok(()), |name| check_key_name(&name.value))?;
        match (question, self.scale, self.read(question)) {
            (Question::Score, None, _) => Err("expected the scale of the judge's scores, such as `scale: [1, 10]`, found none".to_string()),
            (Question::Score, Some(_), Read::Choice) => {
                Err("`read: choice` is for two responses; expected number, json or logprobs for a reward".to_string())
            }
            (Question::Score, Some(scale), Read::Logprobs) => scale.check_digits(),
            (Question::Pair, Some(_), _) => Err("`scale` is for rewards; a judge of two responses has none".to_string()),
            (Question::Pair, None, read @ Read::Number) => {
                Err(format!("`read: {}` is for rewards; expected choice, json or logprobs for two responses", read.name()))
            }
            _ => Ok(()),
        }
    }

    /// The template's text; our own for the question without one.
    pub fn template(&self, question: Question) -> &str {
        match &self.template {
            Some(template) => &template.text,
            None => template::default(question, self.read(question)),
        }
    }

    /// The settings for the fingerprint.
    pub fn settings(&self, question: Question) -> Value {
        json!({
            "model": self.model,
            "template": self.template(question),
            "scale": self.scale,
            "read": self.read(question),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens(question),
            "version": self.version,
        })
    }
}

/// A judge of two responses.
pub(super) fn of_pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Judge>>, D::Error> {
    let judge = Option::<Box<Judge>>::deserialize(deserializer)?;
    judge.as_ref().map_or(Ok(()), |judge| judge.check(Question::Pair)).map_err(serde::de::Error::custom)?;
    Ok(judge)
}

#[allow(clippy::unnecessary_wraps, reason = "a default has the type of its field")]
fn greedy() -> Option<f64> {
    Some(0.0)
}
