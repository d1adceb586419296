//! The loss over pairs. The mathematics of each is at the function of its name in `training::loss`.
//!
//! Knows what a user may write, not what it comes to.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::pipeline::range;

/// The loss over pairs, each counted with its weight: its name, or its name with settings, `{ simpo: { gamma: 1.0 } }`. Δ is the difference of the responses'
/// log ratios between policy and reference.
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
    /// DPO where a share of pairs is the wrong way round (2403.00409).
    Robust(Robust),
    /// −log σ(β·(logprob a token, chosen less rejected) − γ), without a look at the reference; β is usually 2 or more (2405.14734).
    Simpo(Simpo),
    /// (β·Δ − reward_gap)²: regression to relative rewards, β being 1/η (2404.16767).
    Rebel,
}

/// What `robust` takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Robust {
    /// The share of pairs that are the wrong way round, at least 0 and below 0.5.
    #[serde(deserialize_with = "range::below_half")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 0.5))]
    pub label_smoothing: f64,
}

impl Default for Robust {
    fn default() -> Self {
        Self { label_smoothing: 0.1 }
    }
}

/// What `simpo` takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simpo {
    /// The margin γ that is aimed at, at least 0.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
}

impl Default for Simpo {
    fn default() -> Self {
        Self { gamma: 0.5 }
    }
}

/// What `wpo` takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wpo {
    /// The largest factor; null leaves them as they are, as TRL does.
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
        forms.push(serde_json::json!({ "type": "string", "enum": ["robust", "simpo"] }));
    }
}
