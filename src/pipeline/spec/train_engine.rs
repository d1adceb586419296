//! A trainer outside of this program in place of ours.
//!
//! Knows the keys, not how the program runs, nor what it trains.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{Argument, Place, Program, arguments};
use crate::pipeline::position::{At, Name};
use crate::pipeline::range;

/// A program that trains in place of this machine's own trainer, such as TRL started by accelerate.
/// It gets the pairs, the policy, the settings of the node, seed and iteration in environment
/// variables, and makes a Hugging Face directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainEngine {
    /// The program and its arguments, as `run` of a `command`.
    #[serde(deserialize_with = "arguments")]
    #[schemars(length(min = 1))]
    pub command: Vec<At<Argument>>,
    /// The files of the program, as `files` of a `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Name>,
    /// A version of the program, for changes outside of `files`. Another version makes the node run
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The time limit of the program, in seconds, above 0. No limit by default.
    #[serde(default, deserialize_with = "range::optional_positive", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout_seconds: Option<f64>,
    /// The program's place; filled in by the check of the pipeline.
    #[serde(skip)]
    pub place: Place,
}

impl TrainEngine {
    /// Its program.
    pub fn program(&self) -> Program<'_> {
        Program { words: &self.command, place: &self.place, timeout_seconds: self.timeout_seconds }
    }
}
