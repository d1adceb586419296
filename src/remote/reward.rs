//! Rewards by a server: batches of texts out, a number for each back.
//!
//! Knows two protocols of the exchange, not the origin of the texts or the meaning of the numbers.

use serde_json::{Value, json};

use super::client::Client;
use super::error::RemoteError;
use super::stop::Stopped;

/// The protocol of a reward server: its request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `{"prompts": […], "responses": […]}` → `{"scores": […]}`.
    Plain,
    /// `{"query": […], "prompts": […], "labels": […]}` → `{"rewards": […]}` or `{"reward": […]}`:
    /// the protocol of OpenRLHF's remote reward models (`--remote_rm_url`,
    /// `openrlhf/cli/serve_rm.py`). A query is the prompt with its response.
    OpenRlhf,
}

/// A response to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Scorable<'a> {
    /// Prompt and response as one text, in the policy's chat template.
    pub query: &'a str,
    /// The prompt.
    pub prompt: &'a str,
    /// The response.
    pub response: &'a str,
    /// The reference answer, if there is one; sent in OpenRLHF's protocol only.
    pub label: Option<&'a str>,
}

/// A scoring server.
#[derive(Clone, Debug)]
pub struct RewardServer {
    client: Client,
    protocol: Protocol,
}

impl RewardServer {
    /// The server of `client`; requests are posted to its URL.
    pub fn new(client: Client, protocol: Protocol) -> Self {
        Self { client, protocol }
    }

    /// A finite reward for each of `batch`, or `None` where the server says null, asked for in one
    /// request; see [`super::in_order`] for several batches at once.
    ///
    /// # Errors
    /// No usable answer after all attempts, another count of rewards, a reward other than a number
    /// or null, or [`RemoteError::Stopped`].
    pub fn score(&self, batch: &[Scorable], stopped: Stopped) -> Result<Vec<Option<f64>>, RemoteError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.protocol.keys();
        // An answer without the list may be a proxy's; a wrong list is the server's own and would
        // come again.
        let list = self.client.post("", &self.protocol.request(batch), stopped, |answer| {
            let list = keys.iter().find_map(|key| answer.get(key)?.as_array().cloned());
            list.ok_or_else(|| format!("expected a list {}, found none", keys.map(|key| format!("\"{key}\"")).join(" or ")))
        })?;
        let failed = |problem: String| RemoteError::Answer { url: self.client.url().to_string(), problem };
        if list.len() != batch.len() {
            return Err(failed(format!("expected {} rewards, one for each response, found {}", batch.len(), list.len())));
        }
        let numbers = list.iter().enumerate().map(|(index, value)| match value.as_f64() {
            Some(number) if number.is_finite() => Ok(Some(number)),
            None if value.is_null() => Ok(None),
            _ => Err(failed(format!("expected a number as reward {index} of {}, found {}", batch.len(), beginning(value)))),
        });
        numbers.collect()
    }
}

impl Protocol {
    fn keys(self) -> [&'static str; 2] {
        match self {
            Protocol::Plain => ["scores", "rewards"],
            Protocol::OpenRlhf => ["rewards", "reward"],
        }
    }

    fn request(self, batch: &[Scorable]) -> Value {
        let texts = |of: fn(&Scorable) -> String| batch.iter().map(of).collect::<Vec<_>>();
        let prompts = texts(|item| item.prompt.to_string());
        match self {
            Protocol::Plain => json!({ "prompts": prompts, "responses": texts(|item| item.response.to_string()) }),
            Protocol::OpenRlhf => {
                let mut request = json!({ "query": texts(|item| item.query.to_string()), "prompts": prompts });
                if batch.iter().any(|item| item.label.is_some()) {
                    request["labels"] = batch.iter().map(|item| item.label).collect::<Value>();
                }
                request
            }
        }
    }
}

fn beginning(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
