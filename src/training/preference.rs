//! A step on preference pairs, by any loss of `loss`, each pair with its weight.
//!
//! Knows the losses' inputs and outputs, not their formulas.

use crate::compute::CausalLm;

use super::loss::{Loss, Optimism, PairLogprobs, PreferenceLoss, Wpo};
use super::trainer::{LOSS, Quantities};
use super::{Responses, StepMetrics, Trainer, TrainingError};

/// The objective of a preference step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The loss of a pair.
    pub loss: Loss,
    /// A second weight of each pair, if any.
    pub wpo: Option<Wpo>,
    /// A second term of each pair's loss, if any.
    pub optimism: Option<Optimism>,
}

impl From<Loss> for Objective {
    fn from(loss: Loss) -> Self {
        Self { loss, wpo: None, optimism: None }
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
    /// One step on the mean of the weighted loss over all `pairs`. Their rows are those of
    /// `responses`.
    ///
    /// # Errors
    /// When there is no pair, a row does not exist, or a loss or gradient is not finite and stops;
    /// nothing has changed then.
    pub fn preference_step(
        &mut self,
        responses: &Responses,
        pairs: &[Pair],
        objective: impl Into<Objective>,
    ) -> Result<StepMetrics, TrainingError> {
        let objective = objective.into();
        let count = pairs.len() as f64;
        let mut sum = PreferenceLoss::default();
        let step = self.step();
        let rows: Vec<usize> = pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect();
        let examples = self.examples(responses.sequences(), &rows, 2);
        let collisions = objective.wpo.is_some();
        let update = self.update(|backend, model| {
            let mut take = |which: &[usize], logprobs: &[f64], collisions: &[f64]| {
                let found = preference_loss(logprobs, collisions, responses, which.iter().map(|&pair| &pairs[pair]), objective);
                sum.add(&found);
                found.derivatives.iter().flatten().map(|derivative| derivative / count).collect()
            };
            let gradients = backend.logprob_gradients(model, examples, responses.prompt_token_counts(), step, collisions, &mut take)?;
            Ok((gradients, quantities(&sum, count)))
        })?;
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
}

/// The numbers of a step on `count` pairs that must be finite.
fn quantities(sum: &PreferenceLoss, count: f64) -> Quantities<4> {
    [
        (LOSS, sum.loss / count),
        // An infinite margin has a loss of 0.
        ("the reward margin", sum.reward_margin / count),
        ("the chosen logprob", sum.logprob_chosen / count),
        ("the rejected logprob", sum.logprob_rejected / count),
    ]
}

/// The loss of `pairs`. `logprobs`, and `collisions` if any, are those of the chosen and the
/// rejected response, pair after pair.
fn preference_loss<'a>(
    logprobs: &[f64],
    collisions: &[f64],
    responses: &Responses,
    pairs: impl Iterator<Item = &'a Pair>,
    Objective { loss, wpo, optimism }: Objective,
) -> PreferenceLoss {
    let mut collided = collisions.as_chunks().0.iter();
    let mut sum = PreferenceLoss::default();
    for (pair, &[policy_chosen, policy_rejected]) in pairs.zip(logprobs.as_chunks().0) {
        let logprobs = PairLogprobs {
            policy_chosen,
            policy_rejected,
            reference_chosen: pair.reference_logprob_chosen,
            reference_rejected: pair.reference_logprob_rejected,
            chosen_tokens: responses.response(pair.chosen).len(),
            rejected_tokens: responses.response(pair.rejected).len(),
            reward_gap: pair.reward_gap,
        };
        let factor = wpo.zip(collided.next()).map_or(1.0, |(wpo, collided)| wpo.weight(&logprobs, *collided));
        let found = loss.of(&logprobs);
        let found = optimism.map_or(found, |optimism| optimism.added_to(found, &logprobs));
        sum.add_pair(&logprobs, found, pair.weight * factor);
    }
    sum
}
