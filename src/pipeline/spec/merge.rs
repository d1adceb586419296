//! `merge`: the pool of an iteration.
//!
//! Knows the keys of the operator, not how it runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::position::Name;

/// The pool of an iteration: the new responses of the selected prompts, and the old responses of
/// all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The rewards of the responses of this iteration.
    pub fresh: Name,
    /// The pool with the responses of the other prompts, usually `pool[t-1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Name>,
    /// Whether the best old response of a prompt stays beside its new ones, to be paired with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_best: bool,
}
