//! What a judge is asked, and how its answer is read.
//!
//! Knows the words and the variables, not the templates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The way to read a judge's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// A score: the last `[[7]]`, or the only number.
    Number,
    /// A JSON object: `{"score": 7}` for a score; `{"better": "A"}`, `"B"` or `"tie"` for two
    /// responses.
    Json,
    /// The probabilities of the first token: the mean of a scale of digits, or the likelier of A
    /// and B.
    Logprobs,
    /// The better response: the last `[[A]]`, `[[B]]` or `[[C]]` for a tie, or the letter alone.
    Choice,
}

impl Read {
    /// The word in the pipeline file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Json => "json",
            Self::Logprobs => "logprobs",
            Self::Choice => "choice",
        }
    }
}

/// What a judge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The score of a response.
    Score,
    /// The better one of two responses.
    Pair,
}

impl Question {
    /// The way to read an answer, unless the file has another.
    pub(super) fn read(self) -> Read {
        match self {
            Self::Score => Read::Number,
            Self::Pair => Read::Choice,
        }
    }

    /// The variables that every template reads.
    pub fn responses(self) -> &'static [&'static str] {
        match self {
            Self::Score => &["response"],
            Self::Pair => &["response_a", "response_b"],
        }
    }

    /// All variables beside the columns of the prompts.
    pub fn variables(self) -> Vec<&'static str> {
        let further: &[&str] = match self {
            Self::Score => &["low", "high"],
            Self::Pair => &[],
        };
        ["prompt", "messages", "reference_answer"].iter().chain(self.responses()).chain(further).copied().collect()
    }
}
