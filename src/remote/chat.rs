//! Chat completions of a server with OpenAI's API (`/chat/completions`): one question, one answer.
//!
//! Knows nothing of the question's meaning, and of the way its answer is read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::Client;
use super::error::RemoteError;
use super::stop::Stopped;

/// The most likely tokens asked for: OpenAI's limit.
const TOP_LOGPROBS: u32 = 20;

/// One model of a server, for questions.
#[derive(Clone, Debug)]
pub struct Chat {
    client: Client,
    model: String,
}

/// A question, and how it is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest<'a> {
    /// The user's message.
    pub question: &'a str,
    /// The divisor of the logits; the server's own without one.
    pub temperature: Option<f64>,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// Whether the logprobs of the first token are asked for.
    pub logprobs: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Its text.
    pub text: String,
    /// Whether the length limit cut it.
    pub is_cut: bool,
    /// The most likely tokens in the place of the first, with their logprobs in nats. None if the
    /// server gave none.
    pub first_token: Option<BTreeMap<String, f64>>,
    /// Tokens of the question, as the server counts them; 0 if it does not.
    pub prompt_tokens: i64,
    /// Tokens of the answer.
    pub completion_tokens: i64,
}

impl Chat {
    /// The model of this name behind `client`.
    pub fn new(client: Client, model: &str) -> Self {
        Self { client, model: model.to_string() }
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// No usable answer after all attempts, or [`RemoteError::Stopped`].
    pub fn ask(&self, request: &ChatRequest, stopped: Stopped) -> Result<Reply, RemoteError> {
        self.client.post("/chat/completions", &request.body(&self.model), stopped, reply)
    }
}

impl ChatRequest<'_> {
    /// The request's body: all that the answer depends on, beside the server.
    pub fn body(&self, model: &str) -> Value {
        let mut body = json!({
            "model": model,
            "messages": [{ "role": "user", "content": self.question }],
            "max_tokens": self.max_tokens,
            "n": 1,
            "stream": false,
        });
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        if self.logprobs {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(TOP_LOGPROBS);
        }
        body
    }
}

fn reply(answer: Value) -> Result<Reply, String> {
    let choice = answer.get("choices").and_then(Value::as_array).and_then(|choices| choices.first());
    let choice = choice.ok_or_else(|| "expected a list \"choices\" with an answer, found none".to_string())?;
    let content = choice.get("message").and_then(|message| message.get("content"));
    let text = match content {
        Some(Value::String(text)) => text.clone(),
        // Of a model that spends all its tokens on reasoning.
        Some(Value::Null) => String::new(),
        _ => return Err("expected a message with a text as \"content\", found none".to_string()),
    };
    let count = |key: &str| answer.get("usage").and_then(|usage| usage.get(key)).and_then(Value::as_i64).unwrap_or(0).max(0);
    Ok(Reply {
        text,
        is_cut: choice.get("finish_reason").and_then(Value::as_str) == Some("length"),
        first_token: first_token(choice),
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
    })
}

/// The most likely tokens in the first place. A token of several spellings has the sum of their
/// probabilities.
fn first_token(choice: &Value) -> Option<BTreeMap<String, f64>> {
    let first = choice.get("logprobs")?.get("content")?.as_array()?.first()?;
    let listed = first.get("top_logprobs").and_then(Value::as_array).filter(|top| !top.is_empty());
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    for token in listed.map_or_else(|| std::slice::from_ref(first), Vec::as_slice) {
        let (Some(text), Some(logprob)) = (token.get("token").and_then(Value::as_str), token.get("logprob").and_then(Value::as_f64)) else {
            continue;
        };
        let entry = found.entry(text.to_string()).or_insert(f64::NEG_INFINITY);
        *entry = (entry.exp() + logprob.exp()).ln();
    }
    found.retain(|_, logprob| logprob.is_finite());
    if found.is_empty() { None } else { Some(found) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ChatRequest, reply};

    #[test]
    fn answers_are_read_with_their_tokens_and_logprobs() {
        let top = json!([{ "token": "7", "logprob": -0.5 }, { "token": " 8", "logprob": -1.5 }]);
        let answer = json!({
            "choices": [{
                "message": { "role": "assistant", "content": "7" }, "finish_reason": "length",
                "logprobs": { "content": [{ "token": "7", "logprob": -0.5, "top_logprobs": top }] },
            }],
            "usage": { "prompt_tokens": 12, "completion_tokens": 1 },
        });
        let found = reply(answer).unwrap();
        assert!(found.is_cut && found.text == "7" && found.prompt_tokens == 12 && found.completion_tokens == 1);
        let tokens = found.first_token.unwrap();
        assert!((tokens["7"] + 0.5).abs() < 1e-12 && (tokens[" 8"] + 1.5).abs() < 1e-12);
        let plain = reply(json!({ "choices": [{ "message": { "content": "x" }, "logprobs": null }] })).unwrap();
        assert!(plain.first_token.is_none() && !plain.is_cut && plain.prompt_tokens == 0);
        assert!(reply(json!({ "choices": [] })).is_err());
        assert!(reply(json!({ "choices": [{ "text": "completions" }] })).is_err());
    }

    #[test]
    fn a_setting_that_is_not_given_is_not_sent() {
        let request = ChatRequest { question: "q", temperature: None, max_tokens: 5, logprobs: false };
        let body = request.body("m");
        assert!(body.get("temperature").is_none() && body.get("logprobs").is_none());
        assert_eq!(body["messages"][0]["content"], "q");
    }
}
