//! A server for scoring responses: its address and its requests.
//!
//! Knows the keys, not how requests are sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::address::{check_address, check_key_name};
use super::super::addresses::Addresses;
use crate::pipeline::position::At;

/// A server for scoring batches of responses.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its address, or those of several servers with the same reward.
    pub http: Addresses,
    /// The format of requests and answers.
    pub protocol: RewardProtocol,
    /// Responses in one request.
    pub batch_size: u32,
    /// Requests at the same time, at least 1; of several servers, to each of them.
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
pub(super) fn server(http: Addresses, settings: ServerFields) -> Result<Server, String> {
    http.iter().try_for_each(check_address)?;
    settings.api_key_env.as_ref().map_or(Ok(()), |name| check_key_name(&name.value))?;
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
