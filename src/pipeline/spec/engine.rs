//! A server that samples responses instead of this machine.
//!
//! Knows what a user may write about it, not how it is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::position::At;
use crate::pipeline::range;

/// A server with an OpenAI-compatible completions API: vLLM, SGLang, llama.cpp's, mistral.rs. Of all this only `model` is part of the
/// fingerprint: the rest says where and how fast, not what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The address of its API, such as `http://localhost:8000/v1`.
    pub openai: At<String>,
    /// The name by which it serves the policy; it must be among its models.
    pub model: At<String>,
    /// Requests at once.
    #[serde(default = "concurrency", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub concurrency: u32,
    /// How long one request may take.
    #[serde(default = "timeout", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout_seconds: f64,
    /// How often a request that failed is made again, with longer and longer waits.
    #[serde(default = "retries")]
    pub retries: u32,
    /// The environment variable that holds the server's key. The key itself is written nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<At<String>>,
    /// Whether prompts are sent as token ids.
    #[serde(default)]
    pub token_ids: TokenIds,
    /// What happens when responses failed in spite of all retries.
    #[serde(default)]
    pub failures: Failures,
    /// A command that has the server load the policy, run by `sh -c` before each generation. `{model}` becomes the policy's directory, of an
    /// adapter that of a merged copy, in quotes; OPTUNE_MODEL holds it too. It must end with 0, and leave the server running. Needed when the
    /// policy is made by this pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<At<String>>,
    /// How long the command, and then the server until it answers with the model, may take.
    #[serde(default = "serve_timeout", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub serve_timeout_seconds: f64,
}

/// Whether prompts are sent as token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenIds {
    /// As ids where the server takes them, which one request finds out; else as text.
    #[default]
    Auto,
    /// As ids.
    Always,
    /// As text; the server must count as many tokens in it as the policy's tokenizer.
    Never,
}

/// What happens when responses failed in spite of all retries. Either way all of them are asked for, and each is an error row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failures {
    /// The node fails at its end; the same command asks for those again.
    #[default]
    Stop,
    /// The node is finished; the pipeline goes on without them.
    Keep,
}

fn concurrency() -> u32 {
    16
}

fn timeout() -> f64 {
    600.0
}

fn retries() -> u32 {
    5
}

fn serve_timeout() -> f64 {
    1800.0
}
