//! `update`: how a policy gets into the servers.
//!
//! Knows the keys, not the requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{Argument, arguments};
use crate::pipeline::position::At;

/// How a policy gets into each server at the beginning of a node. The servers see the directory of
/// the policy at the same path as this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Update {
    /// vLLM's weight transfer from a disk. The servers run with `VLLM_SERVER_DEV_MODE=1` and
    /// `--weight-transfer-config '{"backend": "disk"}'`.
    Vllm,
    /// SGLang's `update_weights_from_disk`.
    Sglang,
    /// vLLM's `load_lora_adapter`. The policy is an adapter on the model of the servers, named by
    /// `model`. They run with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True` and `--enable-lora`.
    Lora,
    /// A program of your own and its arguments, run for each server in the folder of the file,
    /// without a shell. It gets OPTUNE_MODEL (the directory of the policy), OPTUNE_URL (the
    /// server's address in `admin`), OPTUNE_VERSION (the version for the server to tell),
    /// OPTUNE_NODE and OPTUNE_ITERATION. It ends with exit code 0 once the server has the policy.
    Command(UpdateProgram),
}

/// A program and its arguments, at least the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UpdateProgram(
    /// The words.
    #[serde(deserialize_with = "arguments")]
    #[schemars(length(min = 1))]
    pub Vec<At<Argument>>,
);

impl Update {
    /// Its word in the pipeline file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Lora => "lora",
            Self::Command(_) => "command",
        }
    }
}
