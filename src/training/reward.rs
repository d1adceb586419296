//! A reward model: the rewards of conversations, and a training step on comparisons of two.
//!
//! Knows the loss's inputs and outputs, not its formula: that is in `loss`.

use std::cmp::Reverse;

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};

use crate::model::{CpuTraining, CpuWeights, Padding, RewardModel, Sequences};

use super::loss::{RankingLoss, bradley_terry};
use super::responses::families;
use super::trainer::{LOSS, Quantities, micro_batches, on_processor};
use super::{StepMetrics, Trainer, TrainingError};

/// Two conversations, one preferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The row of the conversation with the chosen response.
    pub chosen: usize,
    /// The row of the one with the rejected response.
    pub rejected: usize,
    /// By how much its reward should at least be lower; 0 for a plain comparison.
    pub margin: f64,
}

/// The reward of each chosen row, a whole conversation.
///
/// `micro_batch` rows go through the model together, rows of similar length, so that little is padding. A row's reward does not depend on
/// the others: on the processor not at all, elsewhere but for the rounding of f32.
///
/// # Errors
/// When a row does not exist or `micro_batch` is 0.
pub fn rewards(model: &RewardModel, sequences: &Sequences, rows: &[usize], micro_batch: usize) -> Result<Vec<f64>, TrainingError> {
    let model = model.valid();
    let mut order: Vec<(usize, usize)> = rows.iter().copied().enumerate().collect();
    order.sort_by_key(|&(_, row)| Reverse(length(sequences, row)));
    let mut rewards = Vec::with_capacity(rows.len());
    let processor = match on_processor(&model.device()) {
        true => Some(CpuTraining::of_reward_model(&model, &CpuWeights::of(&model)?, false)?),
        false => None,
    };
    for piece in micro_batches(&order, micro_batch)? {
        let (at, rows): (Vec<usize>, Vec<usize>) = piece.iter().copied().unzip();
        let found = match &processor {
            Some(processor) => processor.scores(&families(sequences, &rows, 1)?)?.into_iter().map(f64::from).collect(),
            None => numbers(forward(&model, sequences, &rows)?),
        };
        rewards.extend(at.into_iter().zip(found));
    }
    rewards.sort_by_key(|&(at, _)| at);
    Ok(rewards.into_iter().map(|(_, reward)| reward).collect())
}

impl Trainer<RewardModel> {
    /// One step on the mean of the Bradley–Terry loss over `comparisons`, whose rows are those of `sequences`; see [`bradley_terry`]. The
    /// metric `reward_margin` is the mean difference of the two rewards, `accuracy` the share of comparisons where it is above 0.
    ///
    /// # Errors
    /// When there is no comparison, a row does not exist, or a loss or gradient is not finite and stops; nothing has changed then.
    pub fn ranking_step(
        &mut self,
        sequences: &Sequences,
        comparisons: &[Comparison],
        centering: Option<f64>,
    ) -> Result<StepMetrics, TrainingError> {
        let count = comparisons.len() as f64;
        let mut sum = RankingLoss::default();
        let update = match self.on_processor {
            true => self.step_in_place(|trainer, weights, gradients| {
                let model = CpuTraining::of_reward_model(&trainer.model, weights, trainer.gradient_checkpointing())?;
                for comparisons in trainer.micro_batches(comparisons)? {
                    let rows: Vec<usize> = comparisons.iter().flat_map(|comparison| [comparison.chosen, comparison.rejected]).collect();
                    model.scores_and_back(&families(sequences, &rows, 2)?, gradients, |scores| {
                        let of_comparison = |(scores, comparison): (&[f32], &Comparison)| {
                            let [chosen, rejected] = [0, 1].map(|side| [f64::from(scores[side])]);
                            let found = bradley_terry(&chosen, &rejected, &[comparison.margin], centering);
                            sum.add(&found);
                            [found.derivative_chosen[0] / count, found.derivative_rejected[0] / count]
                        };
                        scores.chunks_exact(2).zip(comparisons).flat_map(of_comparison).collect()
                    })?;
                }
                Ok(quantities(&sum, count))
            })?,
            false => {
                let work = |model: &RewardModel, comparisons: &[Comparison]| {
                    let rows: Vec<usize> = comparisons.iter().map(|c| c.chosen).chain(comparisons.iter().map(|c| c.rejected)).collect();
                    let rewards = forward(model, sequences, &rows)?;
                    let values = numbers(rewards.clone().inner());
                    let (chosen, rejected) = values.split_at(comparisons.len());
                    let margins: Vec<f64> = comparisons.iter().map(|comparison| comparison.margin).collect();
                    let found = bradley_terry(chosen, rejected, &margins, centering);
                    let derivatives = found.derivative_chosen.iter().chain(&found.derivative_rejected).map(|derivative| derivative / count);
                    let gradients = backward(rewards, derivatives.collect());
                    Ok((found, Some(gradients)))
                };
                let length = |comparison: &Comparison| length(sequences, comparison.chosen).max(length(sequences, comparison.rejected));
                let gradients = self.gradients(comparisons, length, work, |found| sum.add(&found))?;
                self.update(gradients, quantities(&sum, count))?
            }
        };
        Ok(StepMetrics {
            step: self.step() - 1,
            loss: sum.loss / count,
            reward_margin: Some(sum.reward_margin / count),
            accuracy: Some(sum.correct_count as f64 / count),
            logprob_chosen: None,
            logprob_rejected: None,
            kl: None,
            gradient_norm: update.gradient_norm,
            learning_rate: update.learning_rate,
            tokens: comparisons.iter().map(|c| self::length(sequences, c.chosen) + self::length(sequences, c.rejected)).sum(),
            skipped: update.skipped,
        })
    }
}

/// What a step on so many comparisons goes by.
fn quantities(sum: &RankingLoss, count: f64) -> Quantities<2> {
    [(LOSS, sum.loss / count), ("the reward margin", sum.reward_margin / count)]
}

/// The rewards of the chosen rows: `[rows]`.
fn forward(model: &RewardModel, sequences: &Sequences, rows: &[usize]) -> Result<Tensor<1>, TrainingError> {
    let tokens = sequences.gather(rows, Padding::Right)?;
    let lengths: Vec<usize> = rows.iter().map(|&row| length(sequences, row)).collect();
    Ok(model.rewards(tokens, &lengths))
}

/// The gradients of Σ `derivatives` · rewards.
fn backward(rewards: Tensor<1>, derivatives: Vec<f64>) -> burn::tensor::Gradients {
    let shape = [derivatives.len()];
    let derivatives: Vec<f32> = derivatives.into_iter().map(|derivative| derivative as f32).collect();
    let derivatives: Tensor<1> = Tensor::from_data(TensorData::new(derivatives, shape), (&rewards.device().inner(), DType::F32));
    (rewards * derivatives.autodiff()).sum().backward()
}

fn numbers(rewards: Tensor<1>) -> Vec<f64> {
    rewards.into_data().iter::<f64>().collect()
}

fn length(sequences: &Sequences, row: usize) -> usize {
    sequences.lengths().get(row).copied().unwrap_or(0)
}
