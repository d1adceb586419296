//! What every training step shares: micro-batches forward and backward, their gradients summed, clipped, and one optimizer update.
//!
//! Does not know which loss it is, what an epoch is, in which order batches come, or where metrics go.

use std::cmp::Reverse;

use burn::module::Module;
use burn::tensor::{Device, Gradients};

use super::optimizer::{self, Optimizer, Rule};
use super::parameters::{self, Parameters};
use super::{Schedule, TrainingError, micro_batches};

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The optimizer.
    pub rule: Rule,
    /// The learning rates.
    pub schedule: Schedule,
    /// The global gradient norm is clipped to this; `None` leaves it.
    pub gradient_limit: Option<f64>,
    /// How many pairs (or responses, in supervised steps) go through the model together; on the processor, as many such micro-batches
    /// as there are cores are worked on at once. Bounds memory; the gradient is that of the whole batch, up to rounding.
    pub micro_batch: usize,
}

/// What a step found, before its update. What only pairs have is `None` after a supervised step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// The step, counted from 0.
    pub step: u64,
    /// The mean loss, nats: over pairs (see [`weighted_dpo`](super::loss::weighted_dpo)), over response tokens in a supervised step, or over
    /// comparisons.
    pub loss: f64,
    /// The mean of β·Δ, or of the reward differences.
    pub reward_margin: Option<f64>,
    /// The share of pairs with Δ > 0, or of comparisons with a difference above 0.
    pub accuracy: Option<f64>,
    /// The mean of log π(chosen), nats.
    pub logprob_chosen: Option<f64>,
    /// The mean of log π(rejected), nats.
    pub logprob_rejected: Option<f64>,
    /// The k1 estimate of KL(reference ‖ policy), nats a response; see [`weighted_dpo`](super::loss::weighted_dpo).
    pub kl: Option<f64>,
    /// The global L2 norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Tokens that went through the model, prompts included, padding not.
    pub tokens: usize,
}

/// A model in training.
#[derive(Clone, Debug)]
pub struct Trainer<M> {
    pub(super) model: M,
    pub(super) optimizer: Optimizer,
    settings: Settings,
    total_steps: u64,
}

impl<M: Module + Sync> Trainer<M> {
    /// A trainer that will take `total_steps` steps from `model`, on the model's device.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(model: M, settings: Settings, total_steps: u64) -> Result<Self, TrainingError> {
        let limit = settings.gradient_limit.unwrap_or(1.0);
        if limit.is_nan() || limit <= 0.0 {
            return Err(TrainingError::Input(format!("gradient_limit is {limit}, expected a number above 0")));
        }
        let warmup_ratio = settings.schedule.warmup_ratio;
        if !(0.0..=1.0).contains(&warmup_ratio) {
            return Err(TrainingError::Input(format!("warmup_ratio is {warmup_ratio}, expected 0 to 1")));
        }
        Ok(Self { model: model.train(), optimizer: Optimizer::new(settings.rule), settings, total_steps })
    }

    /// How many steps have been taken.
    pub fn step(&self) -> u64 {
        self.optimizer.moments.step
    }

    /// The model as it is now, without autodiff. Shares its weights with the trainer until the next step.
    pub fn model(&self) -> M {
        self.model.valid()
    }

    /// The sum of the gradients that `work` finds for each micro-batch of `items`; what else it finds goes to `take`.
    ///
    /// A micro-batch is made of items of similar `length`, so that little is padding.
    pub(super) fn gradients<T: Copy + Sync, R: Send>(
        &self,
        device: &Device,
        items: &[T],
        length: impl Fn(&T) -> usize,
        work: impl Fn(&M, &[T]) -> Result<(R, Option<Gradients>), TrainingError> + Sync,
        mut take: impl FnMut(R),
    ) -> Result<Parameters, TrainingError> {
        let work = |items: &[T]| {
            // With leaves of its own, so that micro-batches on other threads are other graphs.
            let model = parameters::change(self.model.clone(), |_, weight| weight);
            let (found, gradients) = work(&model, items)?;
            Ok((found, gradients.map(|gradients| parameters::gradients(&model, gradients))))
        };
        let mut items = items.to_vec();
        items.sort_by_key(|item| Reverse(length(item)));
        let mut sum = Parameters::new();
        micro_batches::for_each(device, &items, self.settings.micro_batch, work, |(found, gradients)| {
            take(found);
            for (name, gradient) in gradients.into_iter().flatten() {
                let gradient = match sum.remove(&name) {
                    Some(earlier) => earlier + gradient,
                    None => gradient,
                };
                sum.insert(name, gradient);
            }
        })?;
        Ok(sum)
    }

    /// Clips and applies the gradients; returns their norm and the learning rate.
    pub(super) fn update(&mut self, gradients: Parameters, loss: f64) -> Result<(f64, f64), TrainingError> {
        let step = self.step();
        if gradients.is_empty() {
            return Err(TrainingError::Input(format!("step {step}: the batch has no response token, expected at least one")));
        }
        let finite = |quantity, value: f64| match value.is_finite() {
            true => Ok(value),
            false => Err(TrainingError::Diverged { step, quantity, value }),
        };
        finite("the loss", loss)?;
        let (gradients, norm) = optimizer::clip(gradients, self.settings.gradient_limit);
        finite("the gradient norm", norm)?;
        let learning_rate = self.settings.schedule.rate(step, self.total_steps);
        self.model = self.optimizer.step(self.model.clone(), gradients, learning_rate);
        Ok((norm, learning_rate))
    }
}
