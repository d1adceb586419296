//! A step on preference pairs, by any loss of `loss`, each pair with its weight.
//!
//! Knows the losses' inputs and outputs, not their formulas.

use crate::model::{CausalLm, CpuGradients, CpuTraining, CpuWeights};

use super::logprobs::{Scored, masked};
use super::loss::{Loss, PairLogprobs, PreferenceLoss, Wpo};
use super::parameters::Parameters;
use super::trainer::{LOSS, Quantities};
use super::{Responses, StepMetrics, Trainer, TrainingError};

/// What a step on pairs makes less of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The loss of a pair.
    pub loss: Loss,
    /// What a pair counts besides its weight, if anything.
    pub wpo: Option<Wpo>,
}

impl From<Loss> for Objective {
    fn from(loss: Loss) -> Self {
        Self { loss, wpo: None }
    }
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
    /// The chosen response's reward less the rejected one's.
    pub reward_gap: f64,
}

impl Trainer<CausalLm> {
    /// One step on the mean of the weighted loss over all of `pairs`, whose rows are those of `responses`.
    ///
    /// # Errors
    /// When there is no pair, a row does not exist, or a loss or gradient is not finite and stops; nothing has changed then.
    pub fn preference_step(
        &mut self,
        responses: &Responses,
        pairs: &[Pair],
        objective: impl Into<Objective>,
    ) -> Result<StepMetrics, TrainingError> {
        let objective = objective.into();
        let count = pairs.len() as f64;
        let mut sum = PreferenceLoss::default();
        let update = match self.on_processor {
            true => self.step_in_place(|trainer, weights, gradients| {
                trainer.add_gradients(weights, responses, pairs, objective, gradients, &mut sum)?;
                Ok(quantities(&sum, count))
            })?,
            false => {
                let gradients = self.preference_gradients(responses, pairs, objective, &mut sum)?;
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
        objective: Objective,
        gradients: &mut CpuGradients,
        sum: &mut PreferenceLoss,
    ) -> Result<(), TrainingError> {
        let (count, step) = (pairs.len() as f64, self.step());
        let policy = CpuTraining::of_causal_lm(&self.model, weights, self.gradient_checkpointing())?;
        for pairs in self.micro_batches(pairs)? {
            let rows: Vec<usize> = pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect();
            let (families, prompts) = responses.families(&rows, 2)?;
            policy.logprobs_and_back(&families, &prompts, Some(step), objective.wpo.is_some(), gradients, |at, logprobs, collisions| {
                let found = preference_loss(logprobs, collisions, responses, &pairs[at..=at], objective);
                sum.add(&found);
                found.derivatives.iter().flatten().map(|derivative| derivative / count).collect()
            })?;
        }
        Ok(())
    }

    /// The gradients by autodiff.
    fn preference_gradients(
        &self,
        responses: &Responses,
        pairs: &[Pair],
        objective: Objective,
        sum: &mut PreferenceLoss,
    ) -> Result<Parameters, TrainingError> {
        let (count, step) = (pairs.len() as f64, self.step());
        let work = |policy: &CausalLm, pairs: &[Pair]| {
            let rows: Vec<usize> = pairs.iter().map(|pair| pair.chosen).chain(pairs.iter().map(|pair| pair.rejected)).collect();
            let scored = Scored::new(&masked(policy, step, &rows), responses, &rows, objective.wpo.is_some())?;
            let found = preference_loss(&scored.logprobs, &scored.collisions, responses, pairs, objective);
            let [chosen, rejected] = [0, 1].map(|which| found.derivatives.iter().map(move |both| both[which] / count));
            let derivatives: Vec<f64> = chosen.chain(rejected).collect();
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

/// The loss of `pairs`, whose `logprobs` and, if they are asked for, `collisions` are first those of all chosen and then those of all rejected
/// responses.
fn preference_loss(
    logprobs: &[f64],
    collisions: &[f64],
    responses: &Responses,
    pairs: &[Pair],
    Objective { loss, wpo }: Objective,
) -> PreferenceLoss {
    let (chosen, rejected) = logprobs.split_at(logprobs.len() / 2);
    let mut collided = collisions.iter().zip(collisions.iter().skip(collisions.len() / 2));
    let mut sum = PreferenceLoss::default();
    for ((pair, policy_chosen), policy_rejected) in pairs.iter().zip(chosen).zip(rejected) {
        let logprobs = PairLogprobs {
            policy_chosen: *policy_chosen,
            policy_rejected: *policy_rejected,
            reference_chosen: pair.reference_logprob_chosen,
            reference_rejected: pair.reference_logprob_rejected,
            chosen_tokens: responses.response(pair.chosen).len(),
            rejected_tokens: responses.response(pair.rejected).len(),
            reward_gap: pair.reward_gap,
        };
        let collided = collided.next().map(|(chosen, rejected)| [*chosen, *rejected]);
        let factor = wpo.zip(collided).map_or(1.0, |(wpo, collided)| wpo.weight(&logprobs, collided));
        sum.add_pair(&logprobs, loss.of(&logprobs), pair.weight * factor);
    }
    sum
}
