//! The optimizers, with the semantics of PyTorch, and gradient clipping over all parameters.
//!
//! Written here rather than taken from burn-optim because a run must continue bit for bit after a restart: the state is kept by
//! parameter name, bias corrections are in f64 and clipping sees one norm for all parameters (burn clips each tensor on its own).
//! Knows nothing of models or losses.

use burn::module::Module;
use burn::tensor::Tensor;

use super::parameters::{self, Parameters};

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

impl Optimizer {
    /// An optimizer that has taken no step.
    pub fn new(rule: Rule) -> Self {
        Self { rule, moments: Moments::default() }
    }

    /// Takes one step on every parameter of `module` that has an entry in `gradients`; the others keep their value, undecayed.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: Parameters, learning_rate: f64) -> M {
        self.moments.step += 1;
        parameters::change(module, |name, weight| match gradients.remove(name) {
            Some(gradient) => self.update(name, weight, gradient, learning_rate),
            None => weight,
        })
    }

    fn update(&mut self, name: &str, weight: Tensor<1>, gradient: Tensor<1>, learning_rate: f64) -> Tensor<1> {
        // Taken out of the map while they are updated, so that they have one owner and are changed in place.
        let mut take = |moments: fn(&mut Moments) -> &mut Parameters| {
            moments(&mut self.moments).remove_entry(name).unwrap_or_else(|| (name.to_string(), gradient.zeros_like()))
        };
        match self.rule {
            Rule::AdamW { beta_1, beta_2, eps, weight_decay } => {
                let (name, mean) = take(|moments| &mut moments.first);
                let (_, square) = take(|moments| &mut moments.second);
                let mean = mean * beta_1 + gradient.clone() * (1.0 - beta_1);
                let square = square * beta_2 + gradient.square() * (1.0 - beta_2);
                // More steps than i32 counts would have corrections of 1 all the same.
                let step = i32::try_from(self.moments.step).unwrap_or(i32::MAX);
                let (correction_1, correction_2) = (1.0 - beta_1.powi(step), 1.0 - beta_2.powi(step));
                let scale = square.clone().sqrt() / correction_2.sqrt() + eps;
                let update = mean.clone() / scale * (learning_rate / correction_1);
                self.moments.first.insert(name.clone(), mean);
                self.moments.second.insert(name, square);
                weight * (1.0 - learning_rate * weight_decay) - update
            }
            Rule::RmsProp { alpha, eps, weight_decay } => {
                let (name, square) = take(|moments| &mut moments.second);
                let gradient = if weight_decay == 0.0 { gradient } else { gradient + weight.clone() * weight_decay };
                let square = square * alpha + gradient.clone().square() * (1.0 - alpha);
                let update = gradient / (square.clone().sqrt() + eps) * learning_rate;
                self.moments.second.insert(name, square);
                weight - update
            }
        }
    }
}

/// The global L2 norm over all gradients. One transfer from the device.
pub fn norm(gradients: &Parameters) -> f64 {
    // In slices, because burn-flex sums longer tensors on several threads in an order that changes from run to run.
    let slices = gradients.values().flat_map(|gradient| gradient.clone().split(SLICE, 0));
    let squares: Vec<Tensor<1>> = slices.map(|slice| slice.square().sum()).collect();
    if squares.is_empty() {
        return 0.0;
    }
    Tensor::cat(squares, 0).into_data().iter::<f64>().sum::<f64>().sqrt()
}

/// The most elements summed at once.
const SLICE: usize = 1 << 20;

/// Scales all gradients so that their global norm is at most `limit`, and returns the norm they had before.
///
/// As `torch.nn.utils.clip_grad_norm_`: the factor is `limit / (norm + 1e-6)`, never above 1. Without a limit nothing is scaled.
pub fn clip(gradients: Parameters, limit: Option<f64>) -> (Parameters, f64) {
    let norm = norm(&gradients);
    let factor = limit.map_or(1.0, |limit| limit / (norm + 1e-6));
    if factor >= 1.0 {
        return (gradients, norm);
    }
    (gradients.into_iter().map(|(name, gradient)| (name, gradient * factor)).collect(), norm)
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

    fn gradient(values: [f32; 3]) -> Parameters {
        Parameters::from([("gamma".to_string(), Tensor::from_floats(values, &Device::flex()))])
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
            let mut optimizer = Optimizer::new(rule);
            let mut module = module();
            for (gradients, expected) in [[0.1, -0.2, 3.0], [0.4, 0.0, -1.0], [-0.3, 1e-3, 0.25]].into_iter().zip(expected) {
                module = optimizer.step(module, gradient(gradients), 0.1);
                assert_close(&module, expected);
            }
        }
    }

    #[test]
    fn a_parameter_without_gradient_keeps_its_value() {
        let mut optimizer = Optimizer::new(Rule::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.05 });
        let module = optimizer.step(module(), Parameters::new(), 0.1);
        assert_close(&module, [0.5, -1.25, 2.0]);
        assert!(module.gamma.is_require_grad());
    }

    #[test]
    fn clipping_sees_one_norm_for_all_parameters() {
        let device = Device::flex();
        let gradients = Parameters::from([
            ("a".to_string(), Tensor::from_floats([3.0, 0.0], &device)),
            ("b".to_string(), Tensor::from_floats([4.0], &device)),
        ]);
        let (clipped, norm) = clip(gradients.clone(), Some(1.0));
        assert_eq!(norm, 5.0);
        let clipped: Vec<f32> = clipped.values().flat_map(|gradient| gradient.to_data().iter::<f32>().collect::<Vec<_>>()).collect();
        assert!(clipped.iter().zip([0.6, 0.0, 0.8]).all(|(found, expected)| (found - expected).abs() < 1e-6), "{clipped:?}");
        for limit in [None, Some(5.1)] {
            let (same, _) = clip(gradients.clone(), limit);
            assert!(same.iter().all(|(name, gradient)| gradient.to_data() == gradients[name].to_data()));
        }
        assert_eq!(clip(Parameters::new(), Some(1.0)).1, 0.0);
    }
}
