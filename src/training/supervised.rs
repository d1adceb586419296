//! A step on responses alone: the next-token loss of supervised fine-tuning.

use crate::model::{CausalLm, CpuTraining};

use super::logprobs::{Scored, masked};
use super::trainer::LOSS;
use super::{Responses, StepMetrics, Trainer, TrainingError};

impl Trainer<CausalLm> {
    /// One step on the mean negative logprob of all response tokens of the chosen `rows`: every token weighs the same, so a long
    /// response weighs more than a short one, as in Hugging Face's causal language model loss.
    ///
    /// # Errors
    /// When no row has a response token, a row does not exist, or a loss or gradient is not finite and stops; nothing has changed then.
    pub fn supervised_step(&mut self, responses: &Responses, rows: &[usize]) -> Result<StepMetrics, TrainingError> {
        let count = responses.response_token_count(rows) as f64;
        let (mut loss, step) = (0.0, self.step());
        let update = match self.on_processor {
            true => self.step_in_place(|trainer, weights, gradients| {
                let policy = CpuTraining::of_causal_lm(&trainer.model, weights, trainer.gradient_checkpointing())?;
                for rows in trainer.micro_batches(rows)? {
                    let (families, prompts) = responses.families(rows, 1)?;
                    policy.logprobs_and_back(&families, &prompts, Some(step), false, gradients, |_, logprobs, _| {
                        loss -= logprobs.iter().sum::<f64>() / count;
                        vec![-1.0 / count; logprobs.len()]
                    })?;
                }
                Ok([(LOSS, loss)])
            })?,
            false => {
                let work = |policy: &CausalLm, rows: &[usize]| {
                    let scored = Scored::new(&masked(policy, step, rows), responses, rows, false)?;
                    let found = -scored.logprobs.iter().sum::<f64>() / count;
                    Ok((found, scored.backward(&vec![-1.0 / count; rows.len()])))
                };
                let gradients = self.gradients(rows, |&row| responses.length(row), work, |found| loss += found)?;
                self.update(gradients, [(LOSS, loss)])?
            }
        };
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
