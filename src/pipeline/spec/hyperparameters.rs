//! The settings shared by all operators with an optimizer: `train`, `sft` and `reward_model`.
//!
//! Knows the keys and their ranges, not how gradients are computed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::non_finite::NonFinite;
use super::optimizer::Optimizer;

/// The shared settings of one training node.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    /// The highest learning rate, above 0.
    pub learning_rate: f64,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning rate after the warm-up.
    pub schedule: Schedule,
    /// The warm-up as a share of all steps, at least 0 and below 1.
    pub warmup_ratio: f64,
    /// Passes over the examples.
    pub epochs: u32,
    /// Examples in one optimizer step.
    pub batch_size: u32,
    /// The largest gradient norm; `None` for no limit.
    pub max_gradient_norm: Option<f64>,
    /// The reaction to a loss or gradient without a finite value.
    pub non_finite: NonFinite,
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Constant.
    Constant,
    /// Falls to 0 in a straight line.
    #[default]
    Linear,
    /// Falls to 0 along half a cosine.
    Cosine,
}

/// Defines the settings of an operator with an optimizer: its own keys, the keys of
/// [`Hyperparameters`], then the keys of `more`.
///
/// The file of the operator defines `learning_rate()`, `optimizer()` and `batch_size()`, the
/// defaults of this operator. The keys are fields of the struct itself and not of a
/// `#[serde(flatten)]`: serde buffers flattened values, and errors would lose their line and
/// column.
macro_rules! with_hyperparameters {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* } $(more { $($more:tt)* })?) => {
        $(#[$attribute])*
        pub struct $name {
            $($own)*
            /// The highest learning rate, above 0. Reached at the end of the warm-up.
            #[serde(default = "learning_rate", deserialize_with = "range::positive")]
            #[schemars(extend("exclusiveMinimum" = 0))]
            pub learning_rate: f64,
            /// The optimizer, a name or a name with settings.
            #[serde(default = "optimizer")]
            pub optimizer: Optimizer,
            /// The learning rate after the warm-up.
            #[serde(default)]
            pub schedule: Schedule,
            /// The warm-up as a share of all optimizer steps, at least 0 and below 1. During the
            /// warm-up the learning rate rises from 0 in a straight line.
            #[serde(default = "warmup_ratio", deserialize_with = "range::fraction")]
            #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
            pub warmup_ratio: f64,
            /// Passes over the examples, at least 1.
            #[serde(default = "epochs", deserialize_with = "range::count")]
            #[schemars(range(min = 1))]
            pub epochs: u32,
            /// Examples in one optimizer step, at least 1: pairs, demonstrations or preferences.
            #[serde(default = "batch_size", deserialize_with = "range::count")]
            #[schemars(range(min = 1))]
            pub batch_size: u32,
            /// The largest norm of a step's gradient, above 0. A longer gradient is scaled down to
            /// it. `null` for no limit.
            #[serde(default = "max_gradient_norm", deserialize_with = "range::optional_positive")]
            #[schemars(extend("exclusiveMinimum" = 0))]
            pub max_gradient_norm: Option<f64>,
            /// The reaction to a loss or gradient that is NaN or infinite. `stop` fails the node.
            /// `skip` leaves the step out and counts it; ten skipped steps in a row, or a whole
            /// epoch of them, fail the node.
            #[serde(default, skip_serializing_if = "NonFinite::is_default")]
            pub non_finite: NonFinite,
            /// The reaction to an example that the model's chat template or tokenizer refuses, or
            /// that is longer than the limits of `sft`. `stop` fails the node and names the
            /// example. `skip` leaves it out and counts it, with the reason.
            #[serde(default, skip_serializing_if = "crate::pipeline::spec::malformed::Malformed::is_default")]
            pub malformed: $crate::pipeline::spec::malformed::Malformed,
            /// The precision of the model, and of the reference of `train`. By default that of the
            /// file. Trained weights are f32 in any case.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub precision: Option<$crate::pipeline::position::At<$crate::pipeline::spec::precision::Precision>>,
            $($($more)*)?
        }

        impl $name {
            /// The settings shared with the other training operators.
            pub fn hyperparameters(&self) -> Hyperparameters {
                Hyperparameters {
                    learning_rate: self.learning_rate,
                    optimizer: self.optimizer.clone(),
                    schedule: self.schedule,
                    warmup_ratio: self.warmup_ratio,
                    epochs: self.epochs,
                    batch_size: self.batch_size,
                    max_gradient_norm: self.max_gradient_norm,
                    non_finite: self.non_finite,
                }
            }
        }
    };
}

pub(super) use with_hyperparameters;

/// The default of `warmup_ratio`, the paper's.
pub(super) fn warmup_ratio() -> f64 {
    0.1
}

/// The default of `epochs`.
pub(super) fn epochs() -> u32 {
    1
}

/// The default of `max_gradient_norm`. The paper leaves it open.
pub(super) fn max_gradient_norm() -> Option<f64> {
    Some(1.0)
}
