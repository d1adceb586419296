//! The common part of every training step: gradients from the backend, clipped, and one optimizer
//! update.
//!
//! Knows nothing of losses, epochs, the order of batches or the destination of metrics.

use std::sync::Arc;

use burn::module::Module;

use super::optimizer::{Optimizer, OptimizerConfig};
use super::{Schedule, TrainingError, Unusable, broken_parameter, check_micro_batch};
use crate::compute::{Backend, Examples, Gradients, training_backend_for, training_backend_on_replicas};
use crate::token_lists::TokenLists;

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The optimizer.
    pub rule: OptimizerConfig,
    /// The learning rates.
    pub schedule: Schedule,
    /// The global gradient norm is clipped to this; `None` leaves it.
    pub gradient_limit: Option<f64>,
    /// How many pairs (or responses, in supervised steps) go through the model together. Bounds
    /// memory. The gradient is that of the whole batch: on the CPU bit for bit, elsewhere up to
    /// rounding.
    pub micro_batch: usize,
    /// Whether layers are computed again in the backward pass instead of being kept: less memory,
    /// more work, the same bits. On the CPU only.
    pub gradient_checkpointing: bool,
    /// Whether a step with a loss or gradient of NaN or infinity is skipped and counted. Otherwise
    /// it is an error.
    pub skip_non_finite: bool,
}

/// The metrics of a step, before its update. Metrics of pairs are `None` after a supervised step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// The step, counted from 0.
    pub step: u64,
    /// The mean loss, nats: over pairs (see [`Loss`](super::loss::Loss)), over response tokens in a
    /// supervised step, or over comparisons.
    pub loss: f64,
    /// The mean of β·Δ, or of the reward differences.
    pub reward_margin: Option<f64>,
    /// The share of pairs with Δ > 0, or of comparisons with a difference above 0.
    pub accuracy: Option<f64>,
    /// The mean of log π(chosen), nats.
    pub logprob_chosen: Option<f64>,
    /// The mean of log π(rejected), nats.
    pub logprob_rejected: Option<f64>,
    /// The k1 estimate of KL(reference ‖ policy), nats a response; see
    /// [`PreferenceLoss`](super::loss::PreferenceLoss).
    pub kl: Option<f64>,
    /// The global L2 norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Tokens through the model, with prompts, without padding.
    pub tokens: usize,
    /// The quantity of a skipped step that was not finite.
    pub skipped: Option<Unusable>,
}

/// How many steps changed nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Of all steps.
    pub count: u64,
    /// Since the last step with an update.
    pub in_a_row: u64,
}

/// The update of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Update {
    pub(super) gradient_norm: f64,
    pub(super) learning_rate: f64,
    pub(super) skipped: Option<Unusable>,
}

/// The numbers of a step that must be finite, with their names for errors; the loss first.
pub(super) type Quantities<const N: usize> = [(&'static str, f64); N];

/// The name of the loss among [`Quantities`].
pub(super) const LOSS: &str = "the loss";

/// A model in training.
#[derive(Clone, Debug)]
pub struct Trainer<M> {
    pub(super) model: M,
    pub(super) optimizer: Optimizer,
    pub(super) skipped: Skipped,
    settings: Settings,
    total_steps: u64,
    backend: Arc<dyn Backend>,
}

impl<M: Module + Sync> Trainer<M> {
    /// A trainer of `model`, on the model's device, for `total_steps` steps.
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
        let model = model.train();
        let backend = training_backend_for(&model);
        if settings.gradient_checkpointing && !backend.has_gradient_checkpointing() {
            let problem = "gradient_checkpointing is for training on the CPU; leave it out, or choose device: cpu";
            return Err(TrainingError::Input(problem.to_string()));
        }
        let optimizer = Optimizer::new(settings.rule);
        Ok(Self { model, optimizer, skipped: Skipped::default(), settings, total_steps, backend })
    }

    /// The same on so many replicas on the CPU: they share the examples of a step, and the bits are
    /// those of one.
    ///
    /// # Errors
    /// The model is not on the CPU or not of f32, or the system gives no threads.
    pub fn on_replicas(self, replicas: usize) -> Result<Self, TrainingError> {
        Ok(Self { backend: training_backend_on_replicas(&self.model, replicas)?, ..self })
    }

    /// The number of examples that each replica has taken; empty for one replica.
    pub fn examples_of_replicas(&self) -> Vec<u64> {
        self.backend.examples_of_replicas()
    }

    /// How many steps have been taken, skipped ones included.
    pub fn step(&self) -> u64 {
        self.optimizer.moments.step + self.skipped.count
    }

    /// The skipped steps.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// The first trained parameter with a number that is not finite. The last step can be the
    /// cause.
    pub fn broken_parameter(&self) -> Option<String> {
        broken_parameter(&self.model)
    }

    /// The model as it is now, without autodiff. Shares its weights with the trainer until the next
    /// step.
    pub fn model(&self) -> M {
        self.model.valid()
    }

    /// Rows to be trained on, `rows_per_example` of them an example.
    pub(super) fn examples<'a>(&self, tokens: &'a TokenLists, rows: &'a [usize], rows_per_example: usize) -> Examples<'a> {
        let Settings { micro_batch, gradient_checkpointing, .. } = self.settings;
        Examples { tokens, rows, rows_per_example, micro_batch, gradient_checkpointing }
    }

    /// One step. `work` has the backend compute the gradients, and returns the numbers that must be
    /// finite. The gradients are clipped, and applied if all is finite.
    pub(super) fn update<const N: usize>(
        &mut self,
        work: impl FnOnce(&dyn Backend, &mut M) -> Result<(Gradients, Quantities<N>), TrainingError>,
    ) -> Result<Update, TrainingError> {
        check_micro_batch(self.settings.micro_batch)?;
        let (mut gradients, quantities) = work(&*self.backend, &mut self.model)?;
        let update = self.checked(&mut gradients, &quantities)?;
        if update.skipped.is_none() {
            self.optimizer.step(&mut self.model, gradients, update.learning_rate);
        }
        Ok(update)
    }

    /// Clips the gradients, if there are any. Where they or a quantity are not finite, the step is
    /// an error, or it is counted as skipped: whoever called must not apply it then. The one place
    /// that decides what a number that is none does.
    fn checked(&mut self, gradients: &mut Gradients, quantities: &[(&'static str, f64)]) -> Result<Update, TrainingError> {
        let step = self.step();
        if gradients.is_empty() {
            return Err(TrainingError::Input(format!("step {}: the batch has no response token, expected at least one", step + 1)));
        }
        let gradient_norm = gradients.clip(self.settings.gradient_limit);
        let learning_rate = self.settings.schedule.rate(step, self.total_steps);
        let loss = quantities.first().map_or(f64::NAN, |(_, loss)| *loss);
        let mut all = quantities.iter().copied().chain([("the gradient norm", gradient_norm)]);
        let unusable = all.find(|(_, value)| !value.is_finite()).map(|(quantity, value)| Unusable { quantity, value, loss });
        self.skipped.in_a_row = match unusable {
            Some(unusable) if !self.settings.skip_non_finite => return Err(TrainingError::Diverged { step, unusable }),
            Some(_) => self.skipped.in_a_row + 1,
            None => 0,
        };
        self.skipped.count += u64::from(unusable.is_some());
        Ok(Update { gradient_norm, learning_rate, skipped: unusable })
    }
}
