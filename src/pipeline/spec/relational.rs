//! The operators that are plans over tables: score, merge and sql.
//!
//! Knows what a user may write about them, not how they run.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::non_finite::NonFinite;
use super::query::Query;
use crate::pipeline::position::Name;

/// A reward for every response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The responses to score.
    pub responses: Name,
    /// The reward, one of `inputs`.
    pub reward: Name,
    /// The prompts that the responses answer; found from the responses when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Name>,
    /// What happens where a reward is NaN, infinite or null. `skip` leaves such responses out, and counts them.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
}

/// The pool of an iteration: the new responses of the selected prompts and the old ones of all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The rewards of this iteration's responses.
    pub fresh: Name,
    /// The pool to carry the other prompts' responses over from, usually `pool[t-1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Name>,
    /// Whether the best of the old responses stays beside the new ones, so that what was good once is paired with what is sampled now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_best: bool,
}

/// A table of the user's own, from one SQL query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// The query, or the path of a file that ends in `.sql`.
    pub query: Query,
    /// Tables by the names that the query uses for them, where these are not the tables' own: `{ previous: "pool[t-1]" }`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub tables: IndexMap<String, Name>,
}
