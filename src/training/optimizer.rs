//! The optimizers, with the semantics of PyTorch, and gradient clipping over all parameters.
//!
//! Written here rather than taken from burn-optim because a run must continue bit for bit after a restart: the state is kept by
//! parameter name, bias corrections are in f64 and clipping sees one norm for all parameters (burn clips each tensor on its own).
//! On the processor a step is one pass over the numbers, in place. Knows nothing of models or losses.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

#[cfg(feature = "cuda")]
use super::gpu;
use super::parameters::{self, Parameters};
use crate::kernels::{self, Buffer};
use crate::model::CpuWeights;

/// How a gradient becomes an update. Weight decay applies to *every* parameter, norms and embeddings included, as in
/// `torch.optim.X(model.parameters())`; the Hugging Face Trainer leaves norms and biases out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `torch.optim.AdamW`: weight decay is decoupled from the gradient (Loshchilov and Hutter 2019, arXiv 1711.05101).
    AdamW {
        /// Decay of the mean of gradients; PyTorch 0.9.
        beta_1: f64,
        /// Decay of the mean of squared gradients; PyTorch 0.999.
        beta_2: f64,
        /// Added outside the square root; PyTorch 1e-8.
        eps: f64,
        /// The share of a weight lost a step, times the learning rate; PyTorch 0.01.
        weight_decay: f64,
    },
    /// `torch.optim.RMSprop` without momentum, the optimizer of the DPO paper: weight decay is added to the gradient.
    RmsProp {
        /// Decay of the mean of squared gradients; PyTorch 0.99.
        alpha: f64,
        /// Added outside the square root; PyTorch 1e-8.
        eps: f64,
        /// The share of a weight added to its gradient; PyTorch 0.
        weight_decay: f64,
    },
}

/// A rule and what it remembers of earlier steps.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    pub(super) moments: Moments,
}

/// What an optimizer remembers, by parameter name.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    /// Steps taken.
    pub(super) step: u64,
    /// Running means of gradients; empty for RMSprop.
    pub(super) first: Parameters,
    /// Running means of squared gradients.
    pub(super) second: Parameters,
}

/// The gradients of a step, by parameter name.
pub(super) enum Gradients {
    /// Where the model is; they are still to be multiplied by the factor.
    Tensors(Parameters, f64),
    /// Of a model on the processor, flat.
    Numbers(BTreeMap<String, Buffer>),
}

impl Gradients {
    /// Whether no parameter has a gradient.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Tensors(tensors, _) => tensors.is_empty(),
            Self::Numbers(numbers) => numbers.is_empty(),
        }
    }

    /// The global L2 norm over all gradients. One transfer from the device.
    fn norm(&self) -> f64 {
        match self {
            Self::Tensors(tensors, _) if tensors.is_empty() => 0.0,
            Self::Tensors(tensors, _) => {
                #[cfg(feature = "cuda")]
                if let Some(sum) = gpu::sum_of_squares(tensors.values()) {
                    return sum.sqrt();
                }
                let squares: Vec<Tensor<1>> = tensors.values().map(|gradient| gradient.clone().square().sum()).collect();
                Tensor::cat(squares, 0).into_data().iter::<f64>().sum::<f64>().sqrt()
            }
            Self::Numbers(numbers) => numbers.values().map(|gradient| kernels::sum_of_squares(gradient)).sum::<f64>().sqrt(),
        }
    }

    /// Scales all gradients, or has them scaled when they are applied, so that their global norm is at most `limit`, and returns the norm they had before.
    ///
    /// As `torch.nn.utils.clip_grad_norm_`: the factor is `limit / (norm + 1e-6)`, never above 1. Without a limit nothing is scaled.
    pub(super) fn clip(&mut self, limit: Option<f64>) -> f64 {
        let norm = self.norm();
        let factor = limit.map_or(1.0, |limit| limit / (norm + 1e-6));
        if factor < 1.0 {
            match self {
                Self::Tensors(_, of_tensors) => *of_tensors = factor,
                Self::Numbers(numbers) => numbers.values_mut().for_each(|gradient| kernels::scale(gradient, factor as f32)),
            }
        }
        norm
    }
}

impl Optimizer {
    /// An optimizer that has taken no step.
    pub fn new(rule: Rule) -> Self {
        Self { rule, moments: Moments::default() }
    }

    /// Takes one step on every parameter of `module` that has an entry in `gradients`, which are multiplied by `factor`; the others keep their value, undecayed.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: Parameters, factor: f64, learning_rate: f64) -> M {
        self.moments.step += 1;
        parameters::change(module, |name, weight| match gradients.remove(name) {
            Some(gradient) => self.update(name, weight, gradient, factor, learning_rate),
            None => weight,
        })
    }

    /// [`Self::step`] of weights on the processor, in place.
    pub fn step_in_place(&mut self, weights: &mut CpuWeights, gradients: &BTreeMap<String, Buffer>, learning_rate: f64) {
        self.moments.step += 1;
        for (name, gradient) in gradients {
            if let Some(weight) = weights.trained_mut(name) {
                self.update_in_place(name, weight, gradient, learning_rate);
            }
        }
    }

    fn update(&mut self, name: &str, weight: Tensor<1>, gradient: Tensor<1>, factor: f64, learning_rate: f64) -> Tensor<1> {
        let of_gradient = gradient.clone();
        let zeros = || of_gradient.zeros_like();
        match self.rule {
            Rule::AdamW { beta_1, beta_2, eps, weight_decay } => {
                let (name, mean) = take(&mut self.moments.first, name, zeros);
                let (_, square) = take(&mut self.moments.second, &name, zeros);
                let rule = self.adam_w([beta_1, beta_2], eps, weight_decay, learning_rate);
                let [weight, mean, square] = adam_w(rule, factor, [weight, gradient, mean, square]);
                self.moments.first.insert(name.clone(), mean);
                self.moments.second.insert(name, square);
                weight
            }
            Rule::RmsProp { alpha, eps, weight_decay } => {
                let (name, square) = take(&mut self.moments.second, name, zeros);
                let gradient = scaled(gradient, factor);
                let gradient = if weight_decay == 0.0 { gradient } else { gradient + weight.clone() * weight_decay };
                let square = square * alpha + gradient.clone().square() * (1.0 - alpha);
                let update = gradient / (square.clone().sqrt() + eps) * learning_rate;
                self.moments.second.insert(name, square);
                weight - update
            }
        }
    }

    fn update_in_place(&mut self, name: &str, weights: &mut [f32], gradient: &[f32], learning_rate: f64) {
        let zeros = || Tensor::from_data(TensorData::new(vec![0.0_f32; gradient.len()], [gradient.len()]), &Device::flex());
        let (name, square) = take(&mut self.moments.second, name, zeros);
        match self.rule {
            Rule::AdamW { beta_1, beta_2, eps, weight_decay } => {
                let (name, mean) = take(&mut self.moments.first, &name, zeros);
                let rule = self.adam_w([beta_1, beta_2], eps, weight_decay, learning_rate);
                let [mean, square] = in_place([mean, square], |[means, squares]| kernels::adam_w(rule, weights, gradient, means, squares));
                self.moments.first.insert(name.clone(), mean);
                self.moments.second.insert(name, square);
            }
            Rule::RmsProp { alpha, eps, weight_decay } => {
                let rule = kernels::RmsProp { alpha, eps, rate: learning_rate, weight_decay };
                let [square] = in_place([square], |[squares]| kernels::rms_prop(rule, weights, gradient, squares));
                self.moments.second.insert(name, square);
            }
        }
    }

    /// The numbers of this step's update by AdamW.
    fn adam_w(&self, [beta_1, beta_2]: [f64; 2], eps: f64, weight_decay: f64, learning_rate: f64) -> kernels::AdamW {
        // What the means are divided by, because they begin at 0. More steps than i32 counts would have corrections of 1 all the same.
        let step = i32::try_from(self.moments.step).unwrap_or(i32::MAX);
        let correction = |beta: f64| 1.0 - beta.powi(step);
        kernels::AdamW {
            beta_1,
            beta_2,
            root_correction_2: correction(beta_2).sqrt(),
            eps,
            rate: learning_rate / correction(beta_1),
            kept: 1.0 - learning_rate * weight_decay,
        }
    }
}

fn scaled(gradient: Tensor<1>, factor: f64) -> Tensor<1> {
    if factor == 1.0 { gradient } else { gradient * factor }
}

/// The weight, the mean and the mean square after an update, on any device.
fn adam_w(rule: kernels::AdamW, factor: f64, tensors: [Tensor<1>; 4]) -> [Tensor<1>; 3] {
    #[cfg(feature = "cuda")]
    if let Some(updated) = gpu::adam_w(rule, factor, &tensors) {
        return updated;
    }
    let [weight, gradient, mean, square] = tensors;
    let gradient = scaled(gradient, factor);
    let mean = mean * rule.beta_1 + gradient.clone() * (1.0 - rule.beta_1);
    let square = square * rule.beta_2 + gradient.square() * (1.0 - rule.beta_2);
    let scale = square.clone().sqrt() / rule.root_correction_2 + rule.eps;
    [weight * rule.kept - mean.clone() / scale * rule.rate, mean, square]
}

/// A moment, taken out of the map while it is updated, so that it has one owner and is changed in place.
fn take(moments: &mut Parameters, name: &str, zeros: impl FnOnce() -> Tensor<1>) -> (String, Tensor<1>) {
    moments.remove_entry(name).unwrap_or_else(|| (name.to_string(), zeros()))
}

/// Changes the numbers of f32 tensors on the processor; without a copy of those that have one owner.
fn in_place<const N: usize>(tensors: [Tensor<1>; N], change: impl FnOnce([&mut [f32]; N])) -> [Tensor<1>; N] {
    let device = Device::flex();
    let mut data = tensors.map(Tensor::into_data);
    // A trainer steps in place only where all weights that it trains are f32, and so is what it remembers of them.
    change(data.each_mut().map(|data| data.as_mut_slice().expect("f32")));
    data.map(|data| Tensor::from_data(data, &device))
}

#[cfg(test)]
mod tests {
    use burn::nn::{RmsNorm, RmsNormConfig};
    use burn::tensor::Device;

    use super::*;

    /// A module with one parameter, `gamma`.
    fn module() -> RmsNorm {
        let device = Device::flex().autodiff();
        parameters::change(RmsNormConfig::new(3).init(&device), |_, weight| Tensor::from_floats([0.5, -1.25, 2.0], &weight.device()))
    }

    fn assert_close(found: &RmsNorm, expected: [f32; 3]) {
        let found: Vec<f32> = found.gamma.val().into_data().iter().collect();
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 2e-6), "{found:?}, expected {expected:?}");
    }

    /// ```python
    /// p = torch.nn.Parameter(torch.tensor([0.5, -1.25, 2.0], dtype=torch.float64))  # torch 2.15
    /// o = torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)
    /// o = torch.optim.RMSprop([p], lr=0.1, alpha=0.99, eps=1e-8, weight_decay=0.05)
    /// for g in [0.1, -0.2, 3.0], [0.4, 0.0, -1.0], [-0.3, 1e-3, 0.25]:
    ///     p.grad = torch.tensor(g, dtype=torch.float64); o.step(); print(p)
    /// ```
    #[test]
    fn steps_are_those_of_pytorch() {
        let adam_w = Rule::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.05 };
        let after_adam_w = [[0.3975, -1.14375, 1.89], [0.307075, -1.071025, 1.840528], [0.287869, -1.014195, 1.795446]];
        let rms_prop = Rule::RmsProp { alpha: 0.99, eps: 1e-8, weight_decay: 0.05 };
        let after_rms_prop = [[-0.499999, -0.25, 1.0], [-1.449157, -0.202196, 1.294351], [-0.761373, -0.167203, 1.196814]];
        for (rule, expected) in [(adam_w, after_adam_w), (rms_prop, after_rms_prop)] {
            for way in 0..2 {
                let mut optimizer = Optimizer::new(rule);
                let mut module = module();
                for (values, expected) in [[0.1, -0.2, 3.0], [0.4, 0.0, -1.0], [-0.3, 1e-3, 0.25]].into_iter().zip(expected) {
                    if way == 0 {
                        let gradients = [("gamma".to_string(), Tensor::from_floats(values, &Device::flex()))];
                        module = optimizer.step(module, gradients.into(), 1.0, 0.1);
                    } else {
                        let mut weights = CpuWeights::lend(&mut module).unwrap();
                        optimizer.step_in_place(&mut weights, &[("gamma".to_string(), Buffer::copied(&values))].into(), 0.1);
                        weights.give_back(&mut module);
                    }
                    assert_close(&module, expected);
                    assert!(module.gamma.is_require_grad());
                }
            }
        }
    }

    #[test]
    fn a_parameter_without_gradient_keeps_its_value() {
        let mut optimizer = Optimizer::new(Rule::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.05 });
        let module = optimizer.step(module(), Parameters::new(), 1.0, 0.1);
        assert_close(&module, [0.5, -1.25, 2.0]);
        assert!(module.gamma.is_require_grad());
    }

    #[test]
    fn clipping_sees_one_norm_for_all_parameters() {
        let numbers = BTreeMap::from([("a".to_string(), vec![3.0, 0.0]), ("b".to_string(), vec![4.0])]);
        let tensor = |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), [values.len()]), &Device::flex());
        let tensors: Parameters = numbers.iter().map(|(name, values)| (name.clone(), tensor(values))).collect();
        let values = |gradients: &Gradients| -> Vec<f32> {
            match gradients {
                Gradients::Tensors(tensors, factor) => {
                    let scaled = tensors.values().map(|gradient| scaled(gradient.clone(), *factor));
                    scaled.flat_map(|gradient| gradient.to_data().iter().collect::<Vec<f32>>()).collect()
                }
                Gradients::Numbers(numbers) => numbers.values().flat_map(|gradient| gradient.to_vec()).collect(),
            }
        };
        for on_processor in [false, true] {
            let gradients = || match on_processor {
                false => Gradients::Tensors(tensors.clone(), 1.0),
                true => Gradients::Numbers(numbers.iter().map(|(name, values)| (name.clone(), Buffer::copied(values))).collect()),
            };
            let mut clipped = gradients();
            assert_eq!(clipped.clip(Some(1.0)), 5.0);
            let clipped = values(&clipped);
            assert!(clipped.iter().zip([0.6, 0.0, 0.8]).all(|(found, expected)| (found - expected).abs() < 1e-6), "{clipped:?}");
            for limit in [None, Some(5.1)] {
                let mut same = gradients();
                same.clip(limit);
                assert_eq!(values(&same), values(&gradients()));
            }
        }
        assert_eq!(Gradients::Tensors(Parameters::new(), 1.0).clip(Some(1.0)), 0.0);
    }
}
