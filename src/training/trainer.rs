//! The training loop's one step: micro-batches forward and backward, their gradients summed, clipped, and one optimizer update.
//!
//! Does not know what an epoch is, in which order batches come, or where metrics go.

use std::cmp::Reverse;

use burn::module::Module;
use burn::tensor::Gradients;

use crate::model::Llama;

use super::logprobs::Scored;
use super::loss::{PairLogprobs, PreferenceLoss, weighted_dpo};
use super::optimizer::{self, Optimizer, Rule};
use super::parameters::{self, Parameters};
use super::{Responses, Schedule, TrainingError, micro_batches};

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

/// A preference pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The row of the chosen response.
    pub chosen: usize,
    /// The row of the rejected response.
    pub rejected: usize,
    /// w of the loss, from the reward gap.
    pub weight: f64,
    /// log π_ref(chosen | prompt), nats.
    pub reference_logprob_chosen: f64,
    /// log π_ref(rejected | prompt), nats.
    pub reference_logprob_rejected: f64,
}

/// What a step found, before its update. What only pairs have is `None` after a supervised step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// The step, counted from 0.
    pub step: u64,
    /// The mean loss, nats: over pairs (see [`weighted_dpo`]), or over response tokens in a supervised step.
    pub loss: f64,
    /// The mean of β·Δ.
    pub reward_margin: Option<f64>,
    /// The share of pairs with Δ > 0.
    pub accuracy: Option<f64>,
    /// The mean of log π(chosen), nats.
    pub logprob_chosen: Option<f64>,
    /// The mean of log π(rejected), nats.
    pub logprob_rejected: Option<f64>,
    /// The k1 estimate of KL(reference ‖ policy), nats a response; see [`weighted_dpo`].
    pub kl: Option<f64>,
    /// The global L2 norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Tokens that went through the model, prompts included, padding not.
    pub tokens: usize,
}

/// A policy in training.
#[derive(Clone, Debug)]
pub struct Trainer {
    pub(super) policy: Llama,
    pub(super) optimizer: Optimizer,
    settings: Settings,
    total_steps: u64,
}

impl Trainer {
    /// A trainer that will take `total_steps` steps from `policy`, on the policy's device.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(policy: Llama, settings: Settings, total_steps: u64) -> Result<Self, TrainingError> {
        let limit = settings.gradient_limit.unwrap_or(1.0);
        if limit.is_nan() || limit <= 0.0 {
            return Err(TrainingError::Input(format!("gradient_limit is {limit}, expected a number above 0")));
        }
        let warmup_ratio = settings.schedule.warmup_ratio;
        if !(0.0..=1.0).contains(&warmup_ratio) {
            return Err(TrainingError::Input(format!("warmup_ratio is {warmup_ratio}, expected 0 to 1")));
        }
        Ok(Self { policy: policy.train(), optimizer: Optimizer::new(settings.rule), settings, total_steps })
    }

    /// How many steps have been taken.
    pub fn step(&self) -> u64 {
        self.optimizer.moments.step
    }

    /// The policy as it is now, without autodiff. Shares its weights with the trainer until the next step.
    pub fn policy(&self) -> Llama {
        self.policy.valid()
    }

    /// One step on the mean of the weighted DPO loss over all of `pairs`, whose rows are those of `responses`.
    ///
    /// # Errors
    /// When there is no pair, a row does not exist, or a loss or gradient is not finite; nothing has changed then.
    pub fn preference_step(&mut self, responses: &Responses, pairs: &[Pair], beta: f64) -> Result<StepMetrics, TrainingError> {
        let count = pairs.len() as f64;
        let mut sum = PreferenceLoss::default();
        let work = |policy: &Llama, pairs: &[Pair]| {
            let rows: Vec<usize> = pairs.iter().map(|pair| pair.chosen).chain(pairs.iter().map(|pair| pair.rejected)).collect();
            let scored = Scored::new(policy, responses, &rows)?;
            let found = preference_loss(&scored.logprobs, pairs, beta);
            let chosen = found.derivative.iter().map(|derivative| derivative / count);
            let derivatives: Vec<f64> = chosen.clone().chain(chosen.map(|derivative| -derivative)).collect();
            Ok((found, scored.backward(&derivatives)))
        };
        let length = |pair: &Pair| responses.length(pair.chosen).max(responses.length(pair.rejected));
        let gradients = self.gradients(pairs, length, work, |found| sum.add(&found))?;
        let (gradient_norm, learning_rate) = self.update(gradients, sum.loss / count)?;
        Ok(StepMetrics {
            step: self.step() - 1,
            loss: sum.loss / count,
            reward_margin: Some(sum.reward_margin / count),
            accuracy: Some(sum.correct_count as f64 / count),
            logprob_chosen: Some(sum.logprob_chosen / count),
            logprob_rejected: Some(sum.logprob_rejected / count),
            kl: Some(sum.kl / count),
            gradient_norm,
            learning_rate,
            tokens: pairs.iter().map(|pair| responses.token_count(&[pair.chosen, pair.rejected])).sum(),
        })
    }

    /// One step on the mean negative logprob of all response tokens of the chosen `rows`: every token weighs the same, so a long
    /// response weighs more than a short one, as in Hugging Face's causal language model loss.
    ///
    /// # Errors
    /// When no row has a response token, a row does not exist, or a loss or gradient is not finite; nothing has changed then.
    pub fn supervised_step(&mut self, responses: &Responses, rows: &[usize]) -> Result<StepMetrics, TrainingError> {
        let count = rows.iter().map(|&row| responses.response(row).len()).sum::<usize>() as f64;
        let mut loss = 0.0;
        let work = |policy: &Llama, rows: &[usize]| {
            let scored = Scored::new(policy, responses, rows)?;
            let found = -scored.logprobs.iter().sum::<f64>() / count;
            Ok((found, scored.backward(&vec![-1.0 / count; rows.len()])))
        };
        let gradients = self.gradients(rows, |&row| responses.length(row), work, |found| loss += found)?;
        let (gradient_norm, learning_rate) = self.update(gradients, loss)?;
        Ok(StepMetrics {
            step: self.step() - 1,
            loss,
            reward_margin: None,
            accuracy: None,
            logprob_chosen: None,
            logprob_rejected: None,
            kl: None,
            gradient_norm,
            learning_rate,
            tokens: responses.token_count(rows),
        })
    }

    /// The sum of the gradients that `work` finds for each micro-batch of `items`; what else it finds goes to `take`.
    ///
    /// A micro-batch is made of items of similar `length`, so that little is padding.
    fn gradients<T: Copy + Sync, R: Send>(
        &self,
        items: &[T],
        length: impl Fn(&T) -> usize,
        work: impl Fn(&Llama, &[T]) -> Result<(R, Option<Gradients>), TrainingError> + Sync,
        mut take: impl FnMut(R),
    ) -> Result<Parameters, TrainingError> {
        let work = |items: &[T]| {
            // With leaves of its own, so that micro-batches on other threads are other graphs.
            let policy = parameters::change(self.policy.clone(), |_, weight| weight);
            let (found, gradients) = work(&policy, items)?;
            Ok((found, gradients.map(|gradients| parameters::gradients(&policy, gradients))))
        };
        let mut items = items.to_vec();
        items.sort_by_key(|item| Reverse(length(item)));
        let mut sum = Parameters::new();
        micro_batches::for_each(&self.policy.device(), &items, self.settings.micro_batch, work, |(found, gradients)| {
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
    fn update(&mut self, gradients: Parameters, loss: f64) -> Result<(f64, f64), TrainingError> {
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
        self.policy = self.optimizer.step(self.policy.clone(), gradients, learning_rate);
        Ok((norm, learning_rate))
    }
}

/// The loss of `pairs`, whose `logprobs` are first those of all chosen and then those of all rejected responses.
fn preference_loss(logprobs: &[f64], pairs: &[Pair], beta: f64) -> PreferenceLoss {
    let (policy_chosen, policy_rejected) = logprobs.split_at(logprobs.len() / 2);
    let weights: Vec<f64> = pairs.iter().map(|pair| pair.weight).collect();
    let reference_chosen: Vec<f64> = pairs.iter().map(|pair| pair.reference_logprob_chosen).collect();
    let reference_rejected: Vec<f64> = pairs.iter().map(|pair| pair.reference_logprob_rejected).collect();
    let logprobs =
        PairLogprobs { policy_chosen, policy_rejected, reference_chosen: &reference_chosen, reference_rejected: &reference_rejected };
    weighted_dpo(logprobs, &weights, beta)
}
