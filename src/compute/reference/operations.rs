//! The replaceable operations of the tensor backend: a device may have faster ones. Knows no
//! device.

use std::fmt::Debug;

use burn::tensor::{Int, Tensor};

use super::placement::Placement;
use super::token_logprobs::{HeadTensors, Predictions, TokenLogprobs};
use super::transformer::Decoder;
use crate::compute::update::AdamW;

/// The operations of [`TensorBackend`](super::TensorBackend). Every default is the reference, in
/// burn's operations.
pub trait TensorOperations: Debug + Send + Sync {
    /// Hidden states after the last norm, of rows padded at their end.
    ///
    /// # Shapes
    /// - tokens: `[rows, length]`
    /// - output: `[rows, length, hidden_size]`
    fn hidden(&self, decoder: &Decoder, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [_, length] = tokens.dims();
        let placement = Placement::right_padded(length, &tokens.device());
        decoder.forward(tokens, &placement, None)
    }

    /// From hidden states to the logprobs of tokens.
    fn token_logprobs(&self, predictions: Predictions) -> Box<dyn TokenLogprobs> {
        Box::new(HeadTensors::new(predictions))
    }

    /// The sum of the squares of all numbers of all tensors, at least one.
    fn sum_of_squares(&self, tensors: &[&Tensor<1>]) -> f64 {
        let squares: Vec<Tensor<1>> = tensors.iter().map(|&tensor| tensor.clone().square().sum()).collect();
        Tensor::cat(squares, 0).into_data().iter::<f64>().sum::<f64>()
    }

    /// Updates weight, mean and mean square. The tensors are weight, gradient, mean and mean
    /// square; the gradient is multiplied by `factor`.
    fn adam_w(&self, rule: AdamW, factor: f64, [weight, gradient, mean, square]: [Tensor<1>; 4]) -> [Tensor<1>; 3] {
        let gradient = scaled(gradient, factor);
        let mean = mean * rule.beta_1 + gradient.clone() * (1.0 - rule.beta_1);
        let square = square * rule.beta_2 + gradient.square() * (1.0 - rule.beta_2);
        let scale = square.clone().sqrt() / rule.root_correction_2 + rule.eps;
        [weight * rule.kept - mean.clone() / scale * rule.rate, mean, square]
    }
}

/// burn's operations, on any device.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceOperations;

impl TensorOperations for ReferenceOperations {}

/// A gradient times a factor.
pub fn scaled(gradient: Tensor<1>, factor: f64) -> Tensor<1> {
    if factor == 1.0 { gradient } else { gradient * factor }
}
