//! The precision of models.
//!
//! Knows the choice, not how it is computed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The factors of a model's matrix products. All else is f32 in both: sums of products, weights in
/// training, gradients, optimizers, norms, softmax and losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, as in the weights: for tiny models, and for comparisons.
    #[default]
    F32,
    /// Rounded to bf16, as with PyTorch's autocast and TRL's `bf16: true`; keys and values of
    /// sampling too. Faster where the processor or GPU multiplies these faster.
    Bf16,
}

impl Precision {
    /// Its name in the pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
