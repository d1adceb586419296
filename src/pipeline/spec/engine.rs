//! A server for sampling in place of this machine.
//!
//! Knows the keys, not the requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::addresses::Addresses;
use super::update::Update;
use crate::pipeline::position::At;
use crate::pipeline::range;

/// A server with an OpenAI-compatible completions API: vLLM, SGLang, llama.cpp, llama-cpp-python,
/// transformers, mistral.rs; or several of them with the same model. Only `model` and `version` are
/// part of the fingerprint; the other keys are about place and speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The address of the API, such as `http://localhost:8000/v1`; or a list of addresses, of
    /// servers with the same model.
    pub openai: Addresses,
    /// The server's name for the policy, one of its list of models.
    pub model: At<String>,
    /// The version of the model behind the name, in your words. A changed version asks for all
    /// responses again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The kind of the server. Each spells neutral sampling in its own way.
    #[serde(default)]
    pub server: Server,
    /// Whether the server is compared with the policy before it is asked: a greedy response and its
    /// logprob, computed on this machine's CPU.
    #[serde(default)]
    pub check: Check,
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
    /// Whether prompts are sent as token ids.
    #[serde(default)]
    pub token_ids: TokenIds,
    /// The reaction to responses without success after all retries.
    #[serde(default)]
    pub failures: Failures,
    /// How the policy gets into every server at the beginning of the node. A policy made by this
    /// pipeline needs `update` or `serve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<At<Update>>,
    /// The addresses for `update`, without `/v1`: one for each address of `openai`, in the same
    /// order. Of a router, those of all servers behind it. By default those of `openai`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Addresses>,
    /// A command for `sh -c` before each generation, to load the policy into the server. `{model}`
    /// stands for the directory of the policy, in quotes; for an adapter it is a merged copy. The
    /// variable OPTUNE_MODEL has the same value. The command ends with exit code 0 and leaves the
    /// server running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<At<String>>,
    /// The time limit in seconds, above 0, for the command, and again for the server until it
    /// answers with the model; for each request and each program of `update`.
    #[serde(default = "serve_timeout", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub serve_timeout_seconds: f64,
}

impl Engine {
    /// The addresses for the update of the server at `index` of `openai`. A router has those of all
    /// servers behind it.
    pub fn admins(&self, index: usize) -> Vec<&str> {
        let servers = self.openai.iter().count();
        match &self.admin {
            Some(admin) if servers == 1 => admin.iter().collect(),
            Some(admin) => admin.iter().skip(index).take(1).collect(),
            None => self.openai.iter().skip(index).take(1).map(without_version).collect(),
        }
    }
}

/// An address without the version of OpenAI's API at its end.
fn without_version(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url)
}

/// The kind of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// Found out by its answers.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// The server of llama.cpp.
    LlamaCpp,
    /// The server of llama-cpp-python.
    #[serde(rename = "llama-cpp-python")]
    LlamaCppPython,
    /// `transformers serve`.
    Transformers,
    /// A server with the fields of OpenAI's API only.
    OpenAi,
}

/// Whether a server is compared with the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// If the policy fits into this machine's memory; if not, a message says that it was not.
    #[default]
    Auto,
    /// It is an error if the comparison is not possible.
    Always,
    /// No: for a server of a quantized policy, whose distribution is another one.
    Never,
}

/// Whether prompts are sent as token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenIds {
    /// As ids if the server accepts them, by one test request; else as text.
    #[default]
    Auto,
    /// As ids.
    Always,
    /// As text; the server must count as many tokens in it as the policy's tokenizer.
    Never,
}

/// The reaction to responses without success after all retries. All other responses are requested
/// in any case, and each failure is an error row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failures {
    /// The node fails at its end. The same command requests the failed responses again.
    #[default]
    Stop,
    /// The node finishes, and the pipeline continues without these responses.
    Keep,
}

/// Requests at the same time, of a generation server and of a judge.
pub(super) fn concurrency() -> u32 {
    16
}

/// The time limit of one request, in seconds.
pub(super) fn timeout() -> f64 {
    600.0
}

/// Retries of a failed request.
pub(super) fn retries() -> u32 {
    5
}

fn serve_timeout() -> f64 {
    1800.0
}
