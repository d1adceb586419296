//! The optimizers, with the semantics of PyTorch, and gradient clipping over all parameters.
//!
//! Written here rather than taken from burn-optim because a run must continue bit for bit after a
//! restart: the state is kept by parameter name, bias corrections are in f64 and clipping sees one
//! norm for all parameters (burn clips each tensor on its own). How gradients are applied is the
//! backend's part. Knows nothing of models, losses or devices.

use burn::module::Module;

use crate::compute::reference::named_tensors::NamedTensors;
use crate::compute::{AdamW, Gradients, ParameterState, RmsProp, Update};

/// How a gradient becomes an update. Weight decay leaves out norms and biases, as the Hugging Face
/// Trainer and TRL do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerConfig {
    /// `torch.optim.AdamW`: weight decay is decoupled from the gradient (Loshchilov and Hutter
    /// 2019, arXiv 1711.05101).
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
    /// `torch.optim.RMSprop` without momentum, the optimizer of the DPO paper: weight decay is
    /// added to the gradient.
    RmsProp {
        /// Decay of the mean of squared gradients; PyTorch 0.99.
        alpha: f64,
        /// Added outside the square root; PyTorch 1e-8.
        eps: f64,
        /// The share of a weight added to its gradient; PyTorch 0.
        weight_decay: f64,
    },
}

/// Whether weight decay applies to the parameter `name`: to all but norms and biases, embeddings
/// included. These are the names of `Trainer.get_decay_parameter_names` in transformers.
fn is_decayed(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_norm = |part: &str| part == "norm" || part.ends_with("_norm") || part.contains("layernorm") || part.contains("rmsnorm");
    !name.contains("bias") && !name.split('.').any(is_norm)
}

/// An optimizer and its moments.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: OptimizerConfig,
    pub(super) moments: Moments,
}

/// The state of an optimizer, by parameter name.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    /// Steps taken.
    pub(super) step: u64,
    /// Running means of gradients; empty for RMSprop.
    pub(super) first: NamedTensors,
    /// Running means of squared gradients.
    pub(super) second: NamedTensors,
}

impl Optimizer {
    /// An optimizer before its first step.
    pub fn new(rule: OptimizerConfig) -> Self {
        Self { rule, moments: Moments::default() }
    }

    /// Takes one step on every parameter of `model` with a gradient. The others keep their value,
    /// undecayed.
    pub fn step<M: Module>(&mut self, model: &mut M, gradients: Gradients, learning_rate: f64) {
        self.moments.step += 1;
        let decaying = self.update(learning_rate, 1.0);
        let keeping = self.update(learning_rate, 0.0);
        let moments = &mut self.moments;
        gradients.apply(model, |name, weight, gradient| {
            // Moments leave the maps while they are updated: with one owner they are changed in
            // place.
            let mean = moments.first.remove(name);
            let square = moments.second.remove(name).unwrap_or_else(|| weight.zeros_like());
            let update = if is_decayed(name) { decaying } else { keeping };
            let ParameterState { weight, mean, square } = gradient.apply(update, ParameterState { weight, mean, square });
            moments.first.extend(mean.map(|mean| (name.to_string(), mean)));
            moments.second.insert(name.to_string(), square);
            weight
        });
    }

    /// The arithmetic of this step, with `decay` times the weight decay.
    fn update(&self, learning_rate: f64, decay: f64) -> Update {
        match self.rule {
            OptimizerConfig::AdamW { beta_1, beta_2, eps, weight_decay } => {
                // The means begin at 0 and are divided by their correction. Beyond i32::MAX steps a
                // correction is 1.
                let step = i32::try_from(self.moments.step).unwrap_or(i32::MAX);
                let correction = |beta: f64| 1.0 - beta.powi(step);
                Update::AdamW(AdamW {
                    beta_1,
                    beta_2,
                    root_correction_2: correction(beta_2).sqrt(),
                    eps,
                    rate: learning_rate / correction(beta_1),
                    kept: 1.0 - learning_rate * weight_decay * decay,
                })
            }
            OptimizerConfig::RmsProp { alpha, eps, weight_decay } => {
                Update::RmsProp(RmsProp { alpha, eps, rate: learning_rate, weight_decay: weight_decay * decay })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::nn::{RmsNorm, RmsNormConfig};
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::compute::cpu::kernels::Memory;
    use crate::compute::reference::{ReferenceOperations, named_tensors, scaled};

    fn of_tensors(by_name: NamedTensors) -> Gradients {
        Gradients::Tensors { by_name, factor: 1.0, operations: &ReferenceOperations }
    }

    /// A module with one parameter, `gamma`.
    fn module() -> RmsNorm {
        let device = Device::flex().autodiff();
        named_tensors::change(RmsNormConfig::new(3).init(&device), |_, weight| Tensor::from_floats([0.5, -1.25, 2.0], &weight.device()))
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
        let adam_w = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.05 };
        let after_adam_w = [[0.3975, -1.14375, 1.89], [0.307075, -1.071025, 1.840528], [0.287869, -1.014195, 1.795446]];
        let rms_prop = OptimizerConfig::RmsProp { alpha: 0.99, eps: 1e-8, weight_decay: 0.05 };
        let after_rms_prop = [[-0.499999, -0.25, 1.0], [-1.449157, -0.202196, 1.294351], [-0.761373, -0.167203, 1.196814]];
        for (rule, expected) in [(adam_w, after_adam_w), (rms_prop, after_rms_prop)] {
            for way in 0..2 {
                let mut optimizer = Optimizer::new(rule);
                let mut module = module();
                for (values, expected) in [[0.1, -0.2, 3.0], [0.4, 0.0, -1.0], [-0.3, 1e-3, 0.25]].into_iter().zip(expected) {
                    let gradients = if way == 0 {
                        of_tensors([("gamma".to_string(), Tensor::from_floats(values, &Device::flex()))].into())
                    } else {
                        Gradients::Buffers([("gamma".to_string(), Memory::default().copied(&values))].into())
                    };
                    optimizer.step(&mut module, gradients, 0.1);
                    assert_close(&module, expected);
                    assert!(module.gamma.is_require_grad());
                }
            }
        }
    }

    #[test]
    fn norms_and_biases_do_not_decay() {
        let decayed = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "score.weight", "lora_a"];
        assert!(decayed.iter().all(|name| is_decayed(name)));
        let kept = [
            "model.norm.gamma",
            "model.layers.0.input_layernorm.gamma",
            "model.layers.0.self_attn.q_norm.gamma",
            "model.layers.0.self_attn.q_proj.bias",
        ];
        assert!(!kept.iter().any(|name| is_decayed(name)));
    }

    #[test]
    fn a_parameter_without_gradient_keeps_its_value() {
        let mut optimizer = Optimizer::new(OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.05 });
        let mut module = module();
        optimizer.step(&mut module, of_tensors(NamedTensors::new()), 0.1);
        assert_close(&module, [0.5, -1.25, 2.0]);
        assert!(module.gamma.is_require_grad());
    }

    #[test]
    fn clipping_sees_one_norm_for_all_parameters() {
        let numbers = BTreeMap::from([("a".to_string(), vec![3.0, 0.0]), ("b".to_string(), vec![4.0])]);
        let tensor = |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), [values.len()]), &Device::flex());
        let tensors: NamedTensors = numbers.iter().map(|(name, values)| (name.clone(), tensor(values))).collect();
        let values = |gradients: &Gradients| -> Vec<f32> {
            match gradients {
                Gradients::Tensors { by_name, factor, .. } => {
                    let scaled = by_name.values().map(|gradient| scaled(gradient.clone(), *factor));
                    scaled.flat_map(|gradient| gradient.to_data().iter().collect::<Vec<f32>>()).collect()
                }
                Gradients::Buffers(buffers) => buffers.values().flat_map(|gradient| gradient.to_vec()).collect(),
            }
        };
        let memory = Memory::default();
        for on_cpu in [false, true] {
            let gradients = || {
                if on_cpu {
                    Gradients::Buffers(numbers.iter().map(|(name, values)| (name.clone(), memory.copied(values))).collect())
                } else {
                    of_tensors(tensors.clone())
                }
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
        assert_eq!(of_tensors(NamedTensors::new()).clip(Some(1.0)), 0.0);
    }
}
