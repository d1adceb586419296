//! The pipeline file as types: what a user may write, with every default.
//!
//! Knows the words, not whether the names in them lead anywhere.

pub mod engine;
pub mod evaluate;
pub mod generate;
pub mod held_out;
pub mod hyperparameters;
pub mod input;
pub mod lora;
pub mod loss;
pub mod matrix;
pub mod merge;
pub mod non_finite;
pub mod operator;
pub mod optimizer;
pub mod pair;
pub mod query;
pub mod rank;
pub mod resources;
pub mod reward_model;
pub mod score;
pub mod select;
pub mod sft;
pub mod sql;
pub mod tracking;
pub mod train;

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::position::{At, Name};
use input::Input;
use matrix::Matrix;
use operator::Node;
use tracking::Tracking;

/// A pipeline file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The version of this format: 1. Always the first key.
    #[schemars(extend("const" = 1))]
    pub optune: u32,
    /// The name of the run and of its folder: letters, digits, `-`, `_` and `.`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub name: At<String>,
    /// What all randomness is drawn from.
    #[serde(default)]
    pub seed: u64,
    /// The date that chat templates write as today's, such as `2026-11-23`; only templates that ask for it need one. It is never taken
    /// from the clock, because a run that is resumed tomorrow would then see other prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date"))]
    pub date: Option<At<String>>,
    /// Values that the rest of the file takes in by `${name}`, and `--set name=value` replaces.
    #[serde(default)]
    pub params: IndexMap<String, Param>,
    /// Values of params, and of the seed, for each of which, and each combination of which, there is a run. None once the file is one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// What the pipeline reads from outside, by name.
    #[serde(default)]
    pub inputs: IndexMap<Name, Input>,
    /// Nodes that run once, before the iterations; by the name of what each makes.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub nodes: IndexMap<Name, Node>,
    /// Nodes that run in every iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterate: Option<Iterate>,
    /// Programs that draw curves of the run as it goes on; it makes no difference to what the run makes.
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
    /// What `name[t-1]` is in the first iteration, for every node that is read so: an input, a node outside `iterate`, or `none`.
    #[serde(default)]
    pub start: IndexMap<Name, Name>,
    /// The nodes, by the name of what each makes.
    pub nodes: IndexMap<Name, Node>,
}

/// The value of a param: one scalar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Param {
    /// true or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            // With its decimal point or exponent, so that it reads as it was written.
            Self::Number(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}
