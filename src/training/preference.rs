//! A step on preference pairs: weighted DPO.
//!
//! Knows the loss's inputs and outputs, not its formula: that is in `loss`.

use crate::model::{CausalLm, CpuGradients, CpuTraining, CpuWeights};

use super::logprobs::{Scored, masked};
use super::loss::{PairLogprobs, PreferenceLoss, weighted_dpo};
use super::parameters::Parameters;
use super::trainer::{LOSS, Quantities};
use super::{Responses, StepMetrics, Trainer, TrainingError};

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

impl Trainer<CausalLm> {
    /// One step on the mean of the weighted DPO loss over all of `pairs`, whose rows are those of `responses`.
    ///
    /// # Errors
    /// When there is no pair, a row does not exist, or a loss or gradient is not finite and stops; nothing has changed then.
    pub fn preference_step(&mut self, responses: &Responses, pairs: &[Pair], beta: f64) -> Result<StepMetrics, TrainingError> {
        let count = pairs.len() as f64;
        let mut sum = PreferenceLoss::default();
        let update = match self.on_processor {
            true => self.step_in_place(|trainer, weights, gradients| {
                trainer.add_gradients(weights, responses, pairs, beta, gradients, &mut sum)?;
                Ok(quantities(&sum, count))
            })?,
            false => {
                let gradients = self.preference_gradients(responses, pairs, beta, &mut sum)?;
                self.update(gradients, quantities(&sum, count))?
            }
        };
        Ok(StepMetrics {
            step: self.step() - 1,
            loss: sum.loss / count,
            reward_margin: Some(sum.reward_margin / count),
            accuracy: Some(sum.correct_count as f64 / count),
            logprob_chosen: Some(sum.logprob_chosen / count),
            logprob_rejected: Some(sum.logprob_rejected / count),
            kl: Some(sum.kl / count),
            gradient_norm: update.gradient_norm,
            learning_rate: update.learning_rate,
            tokens: pairs.iter().map(|pair| responses.token_count(&[pair.chosen, pair.rejected])).sum(),
            skipped: update.skipped,
        })
    }

    /// Adds the gradients by kernels of our own: chosen and rejected share their prompt.
    fn add_gradients(
        &self,
        weights: &CpuWeights,
        responses: &Responses,
        pairs: &[Pair],
        beta: f64,
        gradients: &mut CpuGradients,
        sum: &mut PreferenceLoss,
    ) -> Result<(), TrainingError> {
        let (count, step) = (pairs.len() as f64, self.step());
        let policy = CpuTraining::of_causal_lm(&self.model, weights, self.gradient_checkpointing())?;
        for pairs in self.micro_batches(pairs)? {
            let rows: Vec<usize> = pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect();
            let (families, prompts) = responses.families(&rows, 2)?;
            policy.logprobs_and_back(&families, &prompts, Some(step), gradients, |at, logprobs| {
                let found = preference_loss(logprobs, &pairs[at..=at], beta);
                let derivatives = found.derivative.iter().flat_map(|derivative| [derivative / count, -derivative / count]).collect();
                sum.add(&found);
                derivatives
            })?;
        }
        Ok(())
    }

    /// The gradients by autodiff.
    fn preference_gradients(
        &self,
        responses: &Responses,
        pairs: &[Pair],
        beta: f64,
        sum: &mut PreferenceLoss,
    ) -> Result<Parameters, TrainingError> {
        let (count, step) = (pairs.len() as f64, self.step());
        let work = |policy: &CausalLm, pairs: &[Pair]| {
            let rows: Vec<usize> = pairs.iter().map(|pair| pair.chosen).chain(pairs.iter().map(|pair| pair.rejected)).collect();
            let scored = Scored::new(&masked(policy, step, &rows), responses, &rows)?;
            let found = preference_loss(&scored.logprobs, pairs, beta);
            let chosen = found.derivative.iter().map(|derivative| derivative / count);
            let derivatives: Vec<f64> = chosen.clone().chain(chosen.map(|derivative| -derivative)).collect();
            Ok((found, scored.backward(&derivatives)))
        };
        let length = |pair: &Pair| responses.length(pair.chosen).max(responses.length(pair.rejected));
        self.gradients(pairs, length, work, |found| sum.add(&found))
    }
}

/// What a step on so many pairs goes by.
fn quantities(sum: &PreferenceLoss, count: f64) -> Quantities<4> {
    [
        (LOSS, sum.loss / count),
        // An infinite margin has a loss of 0.
        ("the reward margin", sum.reward_margin / count),
        ("the chosen logprob", sum.logprob_chosen / count),
        ("the rejected logprob", sum.logprob_rejected / count),
    ]
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
