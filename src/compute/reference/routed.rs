//! Routed experts in place of an MLP, as the simplest arithmetic: every expert computes every
//! token, and those that were not chosen weigh 0.
//!
//! Mixture of experts (Shazeer et al. 2017, arXiv 1701.06538) with the softmax over all experts
//! before the choice (Jiang et al. 2024, arXiv 2401.04088). Knows nothing of the layer around it.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::mlp::Mlp;
use super::products::linear;
use crate::compute::Precision;
use crate::model::{ExpertsConfig, ModelConfig};

/// A router, and the experts it chooses from: Σ weight · expert(x) over the chosen ones.
#[derive(Module, Debug)]
pub struct RoutedMlp {
    /// Gives each expert a probability.
    pub gate: Router,
    /// All experts.
    pub experts: Vec<Mlp>,
    num_experts_per_tok: usize,
    norm_topk_prob: bool,
}

/// The weights of a router: the probabilities are softmax(weight · x).
#[derive(Module, Debug)]
pub struct Router {
    /// `[experts, hidden_size]`.
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    pub(crate) precision: Precision,
}

/// How experts are chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routing {
    /// How many compute a token.
    pub(crate) chosen: usize,
    /// Whether the weights of a token's experts are divided by their sum.
    pub(crate) normalized: bool,
}

impl Routing {
    /// The experts of one token, the likeliest first; of equals the first.
    pub(crate) fn choose(self, probabilities: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|left, right| probabilities[*right].total_cmp(&probabilities[*left]).then(left.cmp(right)));
        order.truncate(self.chosen);
        order
    }
}

impl RoutedMlp {
    /// Routed experts with parameters made at their first use.
    pub(crate) fn unfilled(config: &ModelConfig, experts: &ExpertsConfig, device: &Device) -> Self {
        let expert = || Mlp::unfilled(config.hidden_size, experts.moe_intermediate_size, config.mlp_bias, config.activation, device);
        Self {
            gate: Router { weight: Initializer::Zeros.init([experts.num_experts, config.hidden_size], device), precision: Precision::F32 },
            experts: (0..experts.num_experts).map(|_| expert()).collect(),
            num_experts_per_tok: experts.num_experts_per_tok,
            norm_topk_prob: experts.norm_topk_prob,
        }
    }

    /// How experts are chosen.
    pub(crate) fn routing(&self) -> Routing {
        Routing { chosen: self.num_experts_per_tok, normalized: self.norm_topk_prob }
    }

    /// # Shapes
    /// - x, output: `[rows, length, hidden_size]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [rows, length, width] = x.dims();
        let x: Tensor<2> = x.reshape([rows * length, width]);
        let logits = linear(self.gate.precision, x.clone(), self.gate.weight.val().transpose(), None);
        let weights = self.weights(softmax(logits, 1));
        let of_expert = |(number, expert): (usize, &Mlp)| expert.forward(x.clone()) * weights.clone().narrow(1, number, 1);
        let sum = self.experts.iter().enumerate().map(of_expert).reduce(|sum, term| sum + term);
        // A configuration without experts is refused.
        sum.unwrap_or_else(|| x.zeros_like()).reshape([rows, length, width])
    }

    /// The weight of each expert for each token: 0 but for the chosen ones.
    ///
    /// # Shapes
    /// - probabilities, output: `[tokens, experts]`
    fn weights(&self, probabilities: Tensor<2>) -> Tensor<2> {
        let [tokens, experts] = probabilities.dims();
        let values: Vec<f32> = probabilities.to_data().iter::<f32>().collect();
        let mut chosen = vec![0.0_f32; values.len()];
        for (row, mask) in values.chunks(experts.max(1)).zip(chosen.chunks_mut(experts.max(1))) {
            self.routing().choose(row).into_iter().for_each(|expert| mask[expert] = 1.0);
        }
        let mask = Tensor::from_data(TensorData::new(chosen, [tokens, experts]), (&probabilities.device(), DType::F32));
        let weights = probabilities * mask;
        if self.norm_topk_prob { weights.clone() / weights.sum_dim(1) } else { weights }
    }
}
