//! A projection: the one kind of layer with a weight matrix inside the transformer, with or without a bias.
//!
//! Knows nothing of attention, heads or checkpoints.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

/// `y = x · weight + bias`.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[in, out]`: the transpose of what a checkpoint stores.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    /// A projection whose parameters are made when first used; a checkpoint gives them their values before that.
    pub(super) fn unfilled(from: usize, to: usize, bias: bool, device: &Device) -> Self {
        let weight = Initializer::Zeros.init([from, to], device);
        let bias = bias.then(|| Initializer::Zeros.init([to], device));
        Self { weight, bias }
    }

    /// # Shapes
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        linear(x, self.weight.val(), self.bias.as_ref().map(|bias| bias.val()))
    }
}
