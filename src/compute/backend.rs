//! The one interface between training and generation, and how a model is computed on a device.

use std::fmt::Debug;

use burn::tensor::Device;

use super::cpu::CpuDecoder;
#[cfg(feature = "gpu")]
use super::gpu::GpuDecoder;
use super::gradients::Gradients;
use super::precision::Precision;
use super::reference::{CausalLm, RewardModel};
use crate::model::{Checkpoint, ModelError};
use crate::token_lists::TokenLists;

/// The sequences of a forward pass: examples of one or more rows each.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// The token ids of all rows.
    pub tokens: &'a TokenLists,
    /// The rows, example after example.
    pub rows: &'a [usize],
    /// Rows of an example: 2 for a pair, with a common prefix; 1 for a response alone.
    pub rows_per_example: usize,
    /// How many examples go through the model together; at least 1.
    pub micro_batch: usize,
    /// Whether layers are computed again in the backward pass, where the backend can.
    pub gradient_checkpointing: bool,
}

/// The loss of some examples: their numbers among all examples, and the logprobs of their rows,
/// example after example, nats. The last argument is Σ log Σ_v p_v² over each row's response
/// tokens, nats, or empty where it is not asked for. Returns the derivative by each logprob.
pub type LogprobLoss<'a> = dyn FnMut(&[usize], &[f64], &[f64]) -> Vec<f64> + Send + 'a;

/// The loss of some examples: their numbers among all examples, and the scores of their rows,
/// example after example. Returns the derivative by each score.
pub type ScoreLoss<'a> = dyn FnMut(&[usize], &[f64]) -> Vec<f64> + Send + 'a;

/// A language model in the form for sampling.
#[derive(Debug)]
pub enum SamplingModel {
    /// Kernels of the CPU: sequences come and go one by one.
    Cpu(Box<CpuDecoder>),
    /// Kernels of a GPU: sequences come and go one by one.
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuDecoder>),
    /// The reference, in padded batches.
    Reference(Box<CausalLm>),
}

/// How models are computed on a device.
///
/// A backend divides examples into micro-batches, computes them forward and backward in the
/// precision of the model, and hands logprobs or scores to the loss. It knows no loss, no optimizer
/// and no sampling rule.
pub trait Backend: Debug + Send + Sync {
    /// The logprob of each chosen row from its token `prompt_token_counts[row]` on: the sum over
    /// these tokens, nats, at temperature 1.
    ///
    /// # Errors
    /// When a row does not exist, or a token is outside the vocabulary.
    fn logprobs(&self, model: &CausalLm, examples: Examples<'_>, prompt_token_counts: &[usize]) -> Result<Vec<f64>, ModelError>;

    /// The score at each chosen row's last token.
    ///
    /// # Errors
    /// When a row does not exist, or a token is outside the vocabulary.
    fn scores(&self, model: &RewardModel, examples: Examples<'_>) -> Result<Vec<f64>, ModelError>;

    /// The gradients of a loss of logprobs, see [`Self::logprobs`]. Dropout is drawn from `step`.
    /// With `collisions` the loss is given these.
    ///
    /// # Errors
    /// When a row does not exist, or a token is outside the vocabulary; the model is as it was
    /// then.
    fn logprob_gradients(
        &self,
        model: &mut CausalLm,
        examples: Examples<'_>,
        prompt_token_counts: &[usize],
        step: u64,
        collisions: bool,
        loss: &mut LogprobLoss<'_>,
    ) -> Result<Gradients, ModelError>;

    /// The gradients of a loss of scores, see [`Self::scores`].
    ///
    /// # Errors
    /// When a row does not exist, or a token is outside the vocabulary; the model is as it was
    /// then.
    fn score_gradients(&self, model: &mut RewardModel, examples: Examples<'_>, loss: &mut ScoreLoss<'_>) -> Result<Gradients, ModelError>;

    /// The number of examples whose gradients each replica has computed; empty for one replica.
    fn examples_of_replicas(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Whether [`Examples::gradient_checkpointing`] saves memory.
    fn has_gradient_checkpointing(&self) -> bool {
        false
    }

    /// How many sequences are sampled at once where nobody says otherwise: with more, none would be
    /// done earlier.
    fn sequences_at_once(&self, _precision: Precision) -> usize {
        64
    }

    /// A model to sample from.
    ///
    /// # Errors
    /// When a weight cannot be converted.
    fn sampling_model(&self, model: CausalLm) -> Result<SamplingModel, ModelError>;

    /// A checkpoint's model to sample from on `device`, in this precision.
    ///
    /// # Errors
    /// When a weight cannot be read or converted.
    fn load_sampling_model(&self, checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<SamplingModel, ModelError> {
        self.sampling_model(checkpoint.load(device)?.in_precision(precision))
    }
}

impl<'a> Examples<'a> {
    /// Every row of `rows` an example of its own.
    pub fn alone(tokens: &'a TokenLists, rows: &'a [usize], micro_batch: usize) -> Self {
        Self { tokens, rows, rows_per_example: 1, micro_batch, gradient_checkpointing: false }
    }

    /// How many examples there are.
    pub fn count(&self) -> usize {
        self.rows.len() / self.rows_per_example.max(1)
    }

    /// The rows of an example.
    pub fn rows_of(&self, example: usize) -> &'a [usize] {
        &self.rows[example * self.rows_per_example..][..self.rows_per_example]
    }

    /// The length of an example's longest row in tokens.
    pub fn length(&self, example: usize) -> usize {
        self.rows_of(example).iter().map(|&row| self.tokens.length(row)).max().unwrap_or(0)
    }
}
