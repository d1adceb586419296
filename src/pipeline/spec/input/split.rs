//! `split`: one of two parts of a table.
//!
//! Knows the keys, not how rows are chosen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::range;

/// One of two parts of a table of prompts or preferences. Two inputs with the same files and the
/// same `held_out` share no prompt. The held-out prompts are chosen by the hash of their contents:
/// neither the order of the rows nor the seed matters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The share of the prompts that are held out, at least 0 and below 1. Above 0 it is at least
    /// one prompt.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub held_out: f64,
    /// The part of the rows that this input has.
    pub take: Part,
}

/// A part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The prompts that are not held out.
    Training,
    /// The held-out prompts.
    HeldOut,
}
