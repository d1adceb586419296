//! A prompt, and how to go on from it.
//!
//! Knows no server.

use serde_json::{Map, Value};

/// How a prompt is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptForm {
    /// As token ids.
    Ids,
    /// As text.
    Text,
    /// As messages, for a server without `/completions`. The server has its own chat template.
    Messages,
}

impl PromptForm {
    /// The word for it in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ids => "token ids",
            Self::Text => "text",
            Self::Messages => "messages",
        }
    }

    /// The path of its requests.
    pub(super) fn path(self) -> &'static str {
        if self == Self::Messages { "/chat/completions" } else { "/completions" }
    }
}

/// A prompt, and how to go on from it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The prompt's token ids. Either sent, or their number is compared with the server's count for
    /// the text.
    pub prompt_ids: &'a [i32],
    /// The same as text.
    pub prompt: &'a str,
    /// The text without its first token, if that is a beginning-of-sequence token that the text
    /// spells out: for a server that adds one to every text.
    pub without_opening: Option<&'a str>,
    /// The prompt as a conversation: `messages`, and the variables of its template. `None` for a
    /// text.
    pub conversation: Option<&'a Map<String, Value>>,
    /// Whether the server is to add the special tokens of a text.
    pub add_special_tokens: bool,
    /// The most tokens of the response.
    pub max_tokens: usize,
    /// The divisor of the logits.
    pub temperature: f64,
    /// The probability of the smallest set of tokens to sample from.
    pub top_p: f64,
    /// How many of the most likely tokens to sample from.
    pub top_k: Option<u32>,
    /// The least share of the most likely token's probability.
    pub min_p: f64,
    /// The divisor of positive logits of tokens that are there already.
    pub repetition_penalty: f64,
    /// What is taken from the logits of the response's tokens.
    pub presence_penalty: f64,
    /// The fewest tokens of the response.
    pub min_tokens: usize,
    /// Texts that end the response.
    pub stop: &'a [String],
    /// Tokens that end the response.
    pub stop_token_ids: &'a [i32],
    /// The seed of this response.
    pub seed: u32,
}

impl Request<'_> {
    /// The same prompt, for the most likely response.
    #[must_use]
    pub fn greedy(&self) -> Self {
        Self { temperature: 0.0, top_p: 1.0, ..self.neutral() }
    }

    /// The same request with settings that leave the model's distribution as it is.
    pub(super) fn neutral(&self) -> Self {
        let stop: &'static [String] = &[];
        Self { top_k: None, min_p: 0.0, repetition_penalty: 1.0, presence_penalty: 0.0, min_tokens: 0, stop, ..self.clone() }
    }
}
