//! From hidden states to the logprobs of tokens, and backward from derivatives by these.
//!
//! Only positions in front of a response token reach the vocabulary. Autodiff never sees a tensor
//! of its size: the derivative of a logprob by its logits is known (one-hot minus probabilities).
//! The backward pass through the head is written out here, and autodiff starts at the hidden
//! states. One `[tokens, vocabulary]` tensor remains instead of about ten. Knows nothing of losses
//! and optimizers.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Gradients, IndexingUpdateOp, Int, Tensor, TensorData};

use super::products::{factor, rounded};
use super::transformer::{CausalLm, LogitRule};
use crate::compute::Precision;

/// Tokens and the hidden states to predict them from.
#[derive(Clone, Debug)]
pub struct Predictions {
    /// `[any, hidden_size]`, with autodiff in training.
    pub hidden: Tensor<2>,
    /// `[tokens]`, at least one: the row of `hidden` to predict each token from.
    pub before: Tensor<1, Int>,
    /// From hidden states to logits, with autodiff in training: `[vocab_size, hidden_size]` when it
    /// is `tied`, else its transpose.
    pub weight: Tensor<2>,
    /// Whether the weight is an embedding's.
    pub tied: bool,
    /// From products with the weight to logits.
    pub rule: LogitRule,
    /// Of the products.
    pub precision: Precision,
    /// `[tokens]`: the tokens.
    pub targets: Tensor<1, Int>,
}

/// The logprobs of tokens, with the inputs of their backward pass.
pub trait TokenLogprobs {
    /// Each token's logprob and, if `collisions` are asked for, log Σ_v p_v² over the vocabulary,
    /// else nothing; nats.
    fn values(&self, collisions: bool) -> [Vec<f64>; 2];

    /// The gradients of Σ `derivatives` · logprobs, one a token; `None` without autodiff. A
    /// `frozen` head weight gets none.
    fn backward(self: Box<Self>, derivatives: Vec<f32>, frozen: bool) -> Option<Gradients>;
}

impl Predictions {
    /// The weights from hidden states to logits, and whether they are an embedding's.
    pub fn head_weight(model: &CausalLm) -> (Tensor<2>, bool) {
        match &model.lm_head {
            Some(lm_head) => (lm_head.weight.val(), false),
            None => (model.model.embed_tokens.weight.val(), true),
        }
    }
}

/// The reference.
pub(crate) struct HeadTensors {
    /// `[tokens, hidden_size]`, with autodiff: the state in front of each token.
    hidden: Tensor<2>,
    /// `[vocab_size, hidden_size]`, with autodiff.
    weight: Tensor<2>,
    /// `[tokens, vocab_size]`, without.
    probabilities: Tensor<2>,
    /// `[tokens, vocab_size]`, without: the derivatives of the logits by the products with the
    /// weight; `None` where they are 1.
    slopes: Option<Tensor<2>>,
    precision: Precision,
    /// `[tokens]`.
    targets: Tensor<1, Int>,
    logprobs: Vec<f64>,
}

impl HeadTensors {
    pub(crate) fn new(predictions: Predictions) -> Self {
        let Predictions { hidden, before, weight, tied, rule, precision, targets } = predictions;
        let hidden = hidden.select(0, before);
        let weight = if tied { weight } else { weight.transpose() };
        let [plain_hidden, plain_weight] = [&hidden, &weight].map(|tensor| factor(precision, tensor.clone().inner()));
        let logits = rule.apply(plain_hidden.matmul(plain_weight.transpose()));
        // In bf16 the derivatives by the products are rounded: they are formed.
        let slopes = rule.slopes(&logits).or_else(|| (precision == Precision::Bf16).then(|| logits.ones_like()));
        let probabilities = softmax(logits.clone(), 1);
        // log Σ e^logit = largest logit − log of its probability. This is at least 1 / vocab_size
        // and keeps its digits.
        let normalizer = logits.clone().max_dim(1) - probabilities.clone().max_dim(1).log();
        let of_tokens = logits.gather(1, targets.clone().unsqueeze_dim(1)) - normalizer;
        let logprobs = of_tokens.into_data().iter().collect();
        Self { hidden, weight, probabilities, slopes, precision, targets, logprobs }
    }
}

impl TokenLogprobs for HeadTensors {
    fn values(&self, collisions: bool) -> [Vec<f64>; 2] {
        let collided = || self.probabilities.clone().square().sum_dim(1).log().into_data().iter().collect();
        [self.logprobs.clone(), if collisions { collided() } else { Vec::new() }]
    }

    fn backward(self: Box<Self>, derivatives: Vec<f32>, frozen: bool) -> Option<Gradients> {
        let Self { hidden, weight, probabilities, slopes, precision, targets, .. } = *self;
        let shape = [derivatives.len(), 1];
        let plain_hidden = factor(precision, hidden.clone().inner());
        let plain_weight = factor(precision, weight.clone().inner());
        let derivative: Tensor<2> = Tensor::from_data(TensorData::new(derivatives, shape), (&plain_hidden.device(), DType::F32));

        if let Some(slopes) = slopes {
            let ones = probabilities.zeros_like().scatter(1, targets.unsqueeze_dim(1), derivative.ones_like(), IndexingUpdateOp::Add);
            let by_products = (ones - probabilities) * derivative * slopes;
            let by_products = if precision == Precision::Bf16 { rounded(by_products) } else { by_products };
            let by_hidden = by_products.clone().matmul(plain_weight);
            let of_hidden = (hidden * by_hidden.autodiff()).sum();
            if frozen {
                return Some(of_hidden.backward());
            }
            let by_weight = by_products.transpose().matmul(plain_hidden);
            return Some((of_hidden + (weight * by_weight.autodiff()).sum()).backward());
        }
        // With G = derivative ⊙ (one-hot − probabilities), the gradient by the logits, these are G
        // · weight and Gᵀ · hidden.
        let by_hidden =
            (plain_weight.clone().select(0, targets.clone()) - probabilities.clone().matmul(plain_weight.clone())) * derivative.clone();
        // A sum with these derivatives, for autodiff to go on from.
        let of_hidden = (hidden * by_hidden.autodiff()).sum();
        if frozen {
            return Some(of_hidden.backward());
        }
        let scaled = plain_hidden * derivative;
        let by_weight = plain_weight.zeros_like().select_assign(0, targets, scaled.clone(), IndexingUpdateOp::Add)
            - probabilities.transpose().matmul(scaled);
        Some((of_hidden + (weight * by_weight.autodiff()).sum()).backward())
    }
}
