//! The loss over pairs. `training::loss` has the formulas, one function each.
//!
//! Knows the keys, not the formulas.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::pipeline::range;

/// The loss over weighted pairs: a name, or a name with settings, `{ simpo: { gamma: 1.0 } }`. Δ is
/// the log ratio between policy and reference of the chosen response, minus the one of the rejected
/// response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = or_bare_name)]
pub enum Loss {
    /// −log σ(β·Δ): direct preference optimization (2305.18290).
    #[default]
    Dpo,
    /// (Δ a token − 1/2β)²: identity preference optimization (2310.12036).
    Ipo,
    /// max(0, 1 − β·Δ) (2305.10425, 2309.06657).
    Hinge,
    /// DPO for data with a share of swapped pairs (2403.00409).
    Robust(Robust),
    /// −log σ(β·(mean logprob a token, chosen − rejected) − γ), without a reference; β is usually 2
    /// or more (2405.14734).
    Simpo(Simpo),
    /// (β·Δ − reward_gap)²: regression to relative rewards, with β = 1/η (2404.16767).
    Rebel,
    /// KL(σ(η·reward_gap) ‖ σ(β·Δ)) of two Bernoulli distributions: reward-aware preference
    /// optimization (2406.11704).
    Rpo(Rpo),
}

/// The settings of `robust`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Robust {
    /// The share of swapped pairs, at least 0 and below 0.5.
    #[serde(deserialize_with = "range::below_half")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 0.5))]
    pub label_smoothing: f64,
}

impl Default for Robust {
    fn default() -> Self {
        Self { label_smoothing: 0.1 }
    }
}

/// The settings of `simpo`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simpo {
    /// The target margin γ, at least 0.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
}

impl Default for Simpo {
    fn default() -> Self {
        Self { gamma: 0.5 }
    }
}

/// The settings of `rpo`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rpo {
    /// The factor of the reward gap, above 0: the paper's η.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gap_scale: f64,
}

impl Default for Rpo {
    fn default() -> Self {
        Self { gap_scale: 1.0 }
    }
}

/// The settings of `wpo`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wpo {
    /// The largest factor, above 0; `null` for no limit, as in TRL.
    #[serde(deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: Option<f64>,
}

impl Default for Wpo {
    fn default() -> Self {
        Self { clip: Some(1.0) }
    }
}

/// Lets the schema accept `loss: robust` beside the long form.
fn or_bare_name(schema: &mut Schema) {
    if let Some(forms) = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut()) {
        forms.push(serde_json::json!({ "type": "string", "enum": ["robust", "simpo", "rpo"] }));
    }
}
