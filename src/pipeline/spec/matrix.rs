//! A matrix: one file for many runs.
//!
//! Knows the keys; `pipeline::matrix` makes the points.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Param;

/// Makes the file a sweep: one run for each combination of the values of all axes, all in one
/// command. The name of a run has its values as a suffix. Outputs shared by several runs are made
/// once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// Combinations to leave out: all with these values.
    #[serde(default)]
    pub exclude: Vec<IndexMap<String, Param>>,
    /// Further combinations of these values. Other axes have the value of their param.
    #[serde(default)]
    pub include: Vec<IndexMap<String, Values>>,
    /// The axes: params, or `seed`, each with its values.
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
