//! A server for scoring responses: its address and its requests.
//!
//! Knows the keys, not how requests are sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::position::At;

/// A server for scoring batches of responses.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its address.
    pub http: At<String>,
    /// The format of requests and answers.
    pub protocol: RewardProtocol,
    /// Responses in one request.
    pub batch_size: u32,
    /// Requests at the same time, at least 1.
    pub concurrency: u32,
    /// The time limit of one request, in seconds, above 0.
    pub timeout_seconds: f64,
    /// Retries of a failed request.
    pub retries: u32,
    /// The environment variable with its key.
    pub api_key_env: Option<At<String>>,
    /// The version of the server's reward, in the user's words.
    pub version: Option<String>,
}

/// The format of requests to a reward server, and of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardProtocol {
    /// Request: `{"prompts": […], "responses": […]}`; answer: `{"scores": […]}`.
    #[default]
    Plain,
    /// OpenRLHF's `get_reward`. Request: `{"query": [prompt and response …], "prompts": […],
    /// "labels": [reference answer …]}`; answer: `{"rewards": […]}`.
    Openrlhf,
}

/// The settings of a server as read.
pub(super) struct ServerFields {
    pub(super) protocol: Option<RewardProtocol>,
    pub(super) batch_size: Option<u32>,
    pub(super) concurrency: Option<u32>,
    pub(super) timeout_seconds: Option<f64>,
    pub(super) retries: Option<u32>,
    pub(super) api_key_env: Option<At<String>>,
    pub(super) version: Option<String>,
}

/// A server with its defaults filled in.
pub(super) fn server(http: At<String>, settings: ServerFields) -> Result<Server, String> {
    let url = &http.value;
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Err(format!("expected an address that begins with http:// or https://, found \"{url}\""));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        // The address is written into the run folder, with a password in it.
        return Err("expected an address without user and password; name the environment variable of a key with `api_key_env`".to_string());
    }
    if host.is_empty() {
        return Err(format!("expected an address with a host, found \"{url}\""));
    }
    if let Some(name) = &settings.api_key_env {
        let valid = !name.value.is_empty() && name.value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            // The text may be the key itself, so the message does not repeat it.
            return Err("`api_key_env`: expected the name of an environment variable, such as REWARD_API_KEY".to_string());
        }
    }
    Ok(Server {
        protocol: settings.protocol.unwrap_or_default(),
        batch_size: settings.batch_size.unwrap_or(32),
        concurrency: settings.concurrency.unwrap_or(4),
        timeout_seconds: settings.timeout_seconds.unwrap_or(120.0),
        retries: settings.retries.unwrap_or(5),
        api_key_env: settings.api_key_env,
        version: settings.version,
        http,
    })
}
