//! Which responses make a pair, and how much it counts. The formulas are at the files of these names in `operators::pair`.
//!
//! Knows what a user may write, not how pairs are made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::position::Name;
use crate::pipeline::range;

/// A chosen (highest reward) and a rejected response for every prompt of a pool with responses whose rewards differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The pool to take responses from.
    pub pool: Name,
    /// Which of the responses that are rewarded less than the chosen one is rejected.
    #[serde(default, skip_serializing_if = "Rejected::is_default")]
    pub rejected: Rejected,
    /// How much each pair counts in the loss.
    #[serde(default)]
    pub weight: Weight,
}

/// Which response is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// The one that was rewarded least.
    #[default]
    Worst,
    /// One drawn from the seed.
    Random,
    /// The one whose reward is nearest to two standard deviations below the mean (2502.16825): with many responses the very worst teach little.
    TwoSigma,
}

impl Rejected {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A pair's weight: made from its reward_gap by `kind`, then normalized, then clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// How the weight follows from the gap. The paper leaves the exact form open.
    pub kind: WeightKind,
    /// What the gap is multiplied by first: the paper's β₂. Above 0.
    #[serde(default = "whole", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gap_scale: f64,
    /// What the weights are divided by.
    #[serde(default)]
    pub normalize: Normalize,
    /// The largest weight; none leaves them as they are.
    #[serde(default, deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: Option<f64>,
}

impl Default for Weight {
    fn default() -> Self {
        Self { kind: WeightKind::None, gap_scale: whole(), normalize: Normalize::None, clip: None }
    }
}

fn whole() -> f64 {
    1.0
}

/// How a weight follows from the reward_gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightKind {
    /// 1 for every pair: plain DPO.
    None,
    /// gap_scale · reward_gap.
    Linear,
    /// σ(gap_scale · reward_gap).
    Sigmoid,
    /// 1 / (1 + gap_scale · reward_gap): the close pairs count most; the opposite of the paper's choice, to compare with.
    Inverse,
}

/// What weights are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Nothing.
    #[default]
    None,
    /// The mean weight over the pairs of the iteration.
    Mean,
}
