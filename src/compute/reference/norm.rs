//! RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467). Knows nothing of where it stands.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Tensor};

/// Each row divided by its root mean square, times the weights.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`: the weights, under burn's name.
    pub gamma: Param<Tensor<1>>,
    epsilon: f64,
    offset: f64,
}

impl Norm {
    /// A norm with weights made at their first use; a checkpoint gives them their values before.
    /// `offset` is added to them whenever they are used.
    pub(crate) fn unfilled(width: usize, epsilon: f64, offset: f64, device: &Device) -> Self {
        Self { gamma: Initializer::Ones.init([width], device), epsilon, offset }
    }

    /// Added to the mean square.
    pub(crate) fn epsilon(&self) -> f32 {
        self.epsilon as f32
    }

    /// Added to the weights.
    pub(crate) fn offset(&self) -> f32 {
        self.offset as f32
    }

    /// The factors of a row: the weights with the offset. `[width]`.
    pub(crate) fn factors(&self) -> Tensor<1> {
        if self.offset == 0.0 { self.gamma.val() } else { self.gamma.val() + self.offset }
    }

    /// # Shapes
    /// - x, output: `[.., width]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let root = (x.clone().cast(DType::F32).square().mean_dim(D - 1) + self.epsilon).sqrt();
        (x / root.cast(dtype)) * self.factors().unsqueeze()
    }
}
