//! The optimizers.
//!
//! Knows their settings, not their formulas.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::pipeline::range;

/// The optimizer: a name, or a name with settings, `{ adamw: { weight_decay: 0.01 } }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = or_bare_name)]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    Adamw(Adamw),
    /// RMSprop without momentum.
    Rmsprop(Rmsprop),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Rmsprop(Rmsprop::default())
    }
}

/// Adam with decoupled weight decay. The defaults are PyTorch's, except for `weight_decay`: 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adamw {
    /// The decay rates of the first and second moments, each at least 0 and below 1.
    #[serde(deserialize_with = "range::betas")]
    pub betas: [f64; 2],
    /// Added to the denominator, above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// The share of each weight, times the learning rate, subtracted in every step; at least 0.
    /// Norms and biases do not decay.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

impl Default for Adamw {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// RMSprop without momentum. The defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rmsprop {
    /// The decay rate of the mean square, at least 0 and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub alpha: f64,
    /// Added to the denominator, above 0.
    #[serde(deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// The multiple of each weight added to its gradient, at least 0. Norms and biases do not
    /// decay.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

impl Default for Rmsprop {
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Lets the schema accept `optimizer: rmsprop` beside the long form.
fn or_bare_name(schema: &mut Schema) {
    if let Some(forms) = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut()) {
        forms.push(serde_json::json!({ "type": "string", "enum": ["adamw", "rmsprop"] }));
    }
}
