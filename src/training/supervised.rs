//! A step on responses alone: the next-token loss of supervised fine-tuning.

use crate::compute::CausalLm;

use super::trainer::LOSS;
use super::{Responses, StepMetrics, Trainer, TrainingError};

impl Trainer<CausalLm> {
    /// One step on the mean negative logprob of all response tokens of the chosen `rows`: every
    /// token weighs the same, so a long response weighs more than a short one, as in Hugging Face's
    /// causal language model loss.
    ///
    /// # Errors
    /// When no row has a response token, a row does not exist, or a loss or gradient is not finite
    /// and stops; nothing has changed then.
    pub fn supervised_step(&mut self, responses: &Responses, rows: &[usize]) -> Result<StepMetrics, TrainingError> {
        let count = responses.response_token_count(rows) as f64;
        let mut loss = 0.0;
        let step = self.step();
        let examples = self.examples(responses.sequences(), rows, 1);
        let update = self.update(|backend, model| {
            let mut take = |_: &[usize], logprobs: &[f64], _: &[f64]| {
                loss -= logprobs.iter().sum::<f64>() / count;
                vec![-1.0 / count; logprobs.len()]
            };
            let gradients = backend.logprob_gradients(model, examples, responses.prompt_token_counts(), step, false, &mut take)?;
            Ok((gradients, [(LOSS, loss)]))
        })?;
        Ok(StepMetrics {
            step: self.step() - 1,
            loss,
            reward_margin: None,
            accuracy: None,
            logprob_chosen: None,
            logprob_rejected: None,
            kl: None,
            gradient_norm: update.gradient_norm,
            learning_rate: update.learning_rate,
            tokens: responses.token_count(rows),
            skipped: update.skipped,
        })
    }
}
