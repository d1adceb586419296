//! A matrix: one file that is many runs.
//!
//! Knows what a user may write; the points that it comes to are made in `pipeline::matrix`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Param;

/// Makes the file a sweep: one run for each combination of the axes' values, named for them, all in one command. What runs have in common
/// is made once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// Combinations that are left out: those that have all of these values.
    #[serde(default)]
    pub exclude: Vec<IndexMap<String, Param>>,
    /// Further combinations: of these values, each with all others; an axis that is not named has its param's value.
    #[serde(default)]
    pub include: Vec<IndexMap<String, Values>>,
    /// The axes: a param, or `seed`, and the values that it takes.
    #[serde(flatten)]
    pub axes: IndexMap<String, Vec<Param>>,
}

/// One value, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Values {
    /// One value.
    One(Param),
    /// Several.
    Several(Vec<Param>),
}
