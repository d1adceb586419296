//! The precision of a model's matrix products. Knows no kernels.

use std::str::FromStr;

use crate::model::ModelError;

/// The numbers that matrix products multiply.
///
/// All else is f32 in both: weights in training, gradients, the optimizer's state, sums of
/// products, norms, softmax and losses. So it is with PyTorch's autocast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Factors of 24 bits of precision.
    #[default]
    F32,
    /// Factors rounded to bf16, 8 bits of precision, and keys and values of sampling too: a
    /// processor with units for it multiplies these several times as fast.
    Bf16,
}

impl FromStr for Precision {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(ModelError::Device(format!("expected f32 or bf16, found {other:?}"))),
        }
    }
}

impl Precision {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
