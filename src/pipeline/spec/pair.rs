//! `pair`: the two responses of a pair, and its weight. The formulas are in `operators::pair`, in
//! files of these names.
//!
//! Knows the keys of the operator, not how it runs.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::pipeline::position::Name;
use crate::pipeline::range;

/// A pair of a chosen response (highest reward) and a rejected one for every prompt of a pool.
/// Prompts with equal rewards for all responses make no pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The pool to take responses from.
    pub pool: Name,
    /// The rejected response, among all with a lower reward than the chosen one.
    #[serde(default, skip_serializing_if = "Rejected::is_default")]
    pub rejected: Rejected,
    /// The weight of each pair in the loss.
    #[serde(default)]
    pub weight: Weight,
    /// Responses cut off by the length limit, kept by default: a name, or a name with settings, `{
    /// penalize: { by: 0.5 } }`.
    #[serde(default, skip_serializing_if = "Truncated::is_keep")]
    pub truncated: Truncated,
}

/// The treatment of responses cut off by the length limit. Their rewards in the pool stay as they
/// are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = or_bare_name)]
pub enum Truncated {
    /// They count like any other.
    #[default]
    Keep,
    /// They count with a lower reward.
    Penalize(Penalize),
    /// They are in no pair.
    Drop,
}

impl Truncated {
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// The settings of `penalize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Penalize {
    /// The difference to the reward as scored, above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub by: f64,
}

impl Default for Penalize {
    fn default() -> Self {
        Self { by: whole() }
    }
}

/// Lets the schema accept `truncated: penalize` beside the long form.
fn or_bare_name(schema: &mut Schema) {
    if let Some(forms) = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut()) {
        forms.push(serde_json::json!({ "type": "string", "enum": ["penalize"] }));
    }
}

/// The rejected response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// The response with the lowest reward.
    #[default]
    Worst,
    /// A response drawn from the seed.
    Random,
    /// The response with the reward nearest to two standard deviations below the mean (2502.16825):
    /// among many responses the very worst teach little.
    TwoSigma,
}

impl Rejected {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The weight of a pair: computed from its reward gap by `kind`, then normalized, then clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// The formula of the weight. The paper leaves the exact form open.
    pub kind: WeightKind,
    /// The factor of the gap, above 0: the paper's β₂.
    #[serde(default = "whole", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gap_scale: f64,
    /// The divisor of the weights.
    #[serde(default)]
    pub normalize: Normalize,
    /// The largest weight, above 0. Larger weights are clipped to it. `null`, the default, for no
    /// limit.
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

/// The formula of a weight, from the reward gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightKind {
    /// 1 for every pair: plain DPO.
    None,
    /// gap_scale · reward_gap.
    Linear,
    /// σ(gap_scale · reward_gap).
    Sigmoid,
    /// 1 / (1 + gap_scale · reward_gap): close pairs count most. The opposite of the paper's
    /// choice, for comparison.
    Inverse,
    /// exp(gap_scale · reward_gap): 1/`gap_scale` is the temperature.
    Exponential,
}

/// The divisor of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Nothing.
    #[default]
    None,
    /// The mean weight over the pairs of the iteration.
    Mean,
}
