//! The types of the pipeline file, with every default.
//!
//! Knows the keys, not the things behind the names.

pub mod address;
pub mod addresses;
pub mod baselines;
pub mod benchmark;
pub mod command;
pub mod devices;
pub mod engine;
pub mod evaluate;
pub mod generate;
pub mod held_out;
pub mod hyperparameters;
pub mod input;
pub mod judge;
pub mod lora;
pub mod loss;
pub mod malformed;
pub mod matrix;
pub mod merge;
mod node_program;
pub mod non_finite;
mod one_or_several;
pub mod operator;
pub mod optimizer;
pub mod pair;
mod param;
pub mod precision;
pub mod query;
pub mod rank;
pub mod reference;
pub mod resources;
pub mod responses_per_prompt;
pub mod reward_model;
pub mod score;
pub mod select;
pub mod sft;
pub mod sql;
pub mod texts;
pub mod tracking;
pub mod train;
pub mod train_engine;
pub mod update;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::position::{At, Name};
pub use param::Param;

use input::Input;
use matrix::Matrix;
use operator::Node;
use precision::Precision;
use tracking::Tracking;

/// A pipeline file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of this format: 1. Always the first key.
    #[schemars(extend("const" = 1))]
    pub optune: u32,
    /// The name of the run and of its folder: at most 100 letters, digits, `-`, `_` and `.`,
    /// beginning with a letter or digit.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub name: At<String>,
    /// The seed of all random numbers, a whole number of at least 0.
    #[serde(default)]
    pub seed: u64,
    /// The folder where relative paths start and programs run, itself a path from the folder of
    /// this file. By default that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<Name>,
    /// The date for chat templates, such as `2026-11-23`. Only templates with today's date need
    /// one. It never comes from the clock: a run resumed tomorrow keeps its prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date"))]
    pub date: Option<At<String>>,
    /// Variables for chat templates by name, such as `{ enable_thinking: false }`, for every model
    /// and every conversation. A conversation's own, from a column `chat_template_kwargs`, come
    /// before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<At<IndexMap<String, serde_json::Value>>>,
    /// The precision of every model computed on this machine, unless its node has another. `f32` by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<At<Precision>>,
    /// Values for `${name}` in the rest of the file. `--set name=value` replaces one.
    #[serde(default)]
    pub params: IndexMap<String, Param>,
    /// Values of params and of the seed, for a run of every combination. Absent in the file of a
    /// single run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// The outside inputs, by name: tables, models and rewards.
    #[serde(default)]
    pub inputs: IndexMap<Name, Input>,
    /// Nodes outside the iterations, which run once before them; each has the name of its output.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub nodes: IndexMap<Name, Node>,
    /// Nodes that run in every iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterate: Option<Iterate>,
    /// The scheduler of a cluster, as `HOST:PORT`: the parts of nodes with models are computed by
    /// its executors, and written here. Never part of a fingerprint: the outputs are the same.
    /// `optune plan` says which nodes stay on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<At<String>>,
    /// Programs with live curves of the run. They never change its outputs.
    #[serde(default, skip_serializing_if = "Tracking::is_off")]
    pub tracking: Tracking,
}

/// Nodes that run in every iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Iterate {
    /// The iterations: `1..N`, both ends included.
    #[schemars(extend("pattern" = r"^1\.\.([0-9]+|\$\{.+\})$"))]
    pub t: At<String>,
    /// The meaning of `name[t-1]` in the first iteration, for every node read this way: an input, a
    /// node outside `iterate`, or `none`.
    #[serde(default)]
    pub start: IndexMap<Name, Name>,
    /// The nodes; each has the name of its output.
    pub nodes: IndexMap<Name, Node>,
}
