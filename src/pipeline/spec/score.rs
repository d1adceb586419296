//! `score`: a reward for every response.
//!
//! Knows the keys of the operator, not how it runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::non_finite::NonFinite;
use super::precision::Precision;
use crate::pipeline::position::{At, Name};

/// A reward for every response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The responses to score.
    pub responses: Name,
    /// The reward: a `reward` of `inputs`, or a `reward_model` node.
    pub reward: Name,
    /// The prompts of the responses. By default the prompts of the node `responses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Name>,
    /// The reaction to a reward that is NaN, infinite or null. `stop` fails the node; `skip` leaves
    /// the response out and counts it.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
    /// The precision of a reward model. By default that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<At<Precision>>,
}
