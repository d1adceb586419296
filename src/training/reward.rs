//! A reward model: the rewards of conversations, and a training step on comparisons of two.
//!
//! Knows the loss's inputs and outputs, not its formula: see `loss`.

use burn::module::Module;

use crate::compute::{Examples, RewardModel, backend_for};
use crate::token_lists::TokenLists;

use super::loss::{RankingLoss, bradley_terry};
use super::trainer::{LOSS, Quantities};
use super::{StepMetrics, Trainer, TrainingError, check_micro_batch};

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
/// `micro_batch` rows go through the model together, rows of similar length to save padding. A
/// row's reward does not depend on the others: on the CPU not at all, elsewhere but for the
/// rounding of f32.
///
/// # Errors
/// When a row does not exist or `micro_batch` is 0.
pub fn rewards(model: &RewardModel, sequences: &TokenLists, rows: &[usize], micro_batch: usize) -> Result<Vec<f64>, TrainingError> {
    check_micro_batch(micro_batch)?;
    let model = model.valid();
    Ok(backend_for(&model.device()).scores(&model, Examples::alone(sequences, rows, micro_batch))?)
}

impl Trainer<RewardModel> {
    /// One step on the mean of the Bradley–Terry loss over `comparisons`. Their rows are those of
    /// `sequences`; see [`bradley_terry`]. The metric `reward_margin` is the mean difference of the
    /// two rewards, `accuracy` the share of comparisons where it is above 0.
    ///
    /// # Errors
    /// When there is no comparison, a row does not exist, or a loss or gradient is not finite and
    /// stops; nothing has changed then.
    pub fn ranking_step(
        &mut self,
        sequences: &TokenLists,
        comparisons: &[Comparison],
        centering: Option<f64>,
    ) -> Result<StepMetrics, TrainingError> {
        let count = comparisons.len() as f64;
        let mut sum = RankingLoss::default();
        let rows: Vec<usize> = comparisons.iter().flat_map(|comparison| [comparison.chosen, comparison.rejected]).collect();
        let examples = self.examples(sequences, &rows, 2);
        let update = self.update(|backend, model| {
            let mut take = |which: &[usize], scores: &[f64]| {
                let side = |side: usize| scores.iter().skip(side).step_by(2).copied().collect::<Vec<f64>>();
                let margins: Vec<f64> = which.iter().map(|&comparison| comparisons[comparison].margin).collect();
                let found = bradley_terry(&side(0), &side(1), &margins, centering);
                sum.add(&found);
                let derivatives = found.derivative_chosen.iter().zip(&found.derivative_rejected);
                derivatives.flat_map(|(chosen, rejected)| [chosen / count, rejected / count]).collect()
            };
            let gradients = backend.score_gradients(model, examples, &mut take)?;
            Ok((gradients, quantities(&sum, count)))
        })?;
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
            tokens: comparisons.iter().map(|c| sequences.length(c.chosen) + sequences.length(c.rejected)).sum(),
            skipped: update.skipped,
        })
    }
}

/// The numbers of a step on `count` comparisons that must be finite.
fn quantities(sum: &RankingLoss, count: f64) -> Quantities<2> {
    [(LOSS, sum.loss / count), ("the reward margin", sum.reward_margin / count)]
}
