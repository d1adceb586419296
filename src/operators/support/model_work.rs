//! The work of models for one part of a table: samples, logprobs or rewards of token ids.
//!
//! The same code computes it in this process and in an executor of a cluster. Knows token ids and
//! the settings of sampling, neither tables nor operators.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;

use super::memory_budget::{self, Budget};
use super::{DeviceTime, OperatorError};
use crate::compute::{CausalLm, Precision, RewardModel, backend_for};
use crate::generation::{Generated, Generator, Sampling, StopStrings};
use crate::model::Checkpoint;
use crate::token_lists::TokenLists;
use crate::training::{self, Responses, broken_parameter};

/// This module in internal errors.
const PLACE: &str = "operators::support::model_work";

/// One computation of one of a task's models.
#[derive(Clone, Debug)]
pub struct Work {
    /// The model, as an index into the models of the task.
    pub model: usize,
    /// The subject for errors, if it is narrower than the part.
    pub of: Option<String>,
    /// The computation.
    pub job: Job,
}

/// A computation of a model.
#[derive(Clone, Debug)]
pub enum Job {
    /// Responses to prompts.
    Samples(Samples),
    /// The logprobs of responses.
    Logprobs(Logprobs),
    /// The rewards of whole conversations.
    Rewards(Rewards),
}

/// Responses to sample.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The prompts.
    pub prompts: TokenLists,
    /// One seed for each response of each prompt.
    pub seeds: Vec<Vec<[u8; 32]>>,
    /// The settings.
    pub sampling: Sampling,
    /// Texts that end a response.
    pub stop: Vec<String>,
    /// No stop string ends a response within so many tokens.
    pub stop_after_tokens: usize,
    /// Responses at a time; `None` for the usual number of the device.
    pub batch_size: Option<usize>,
}

/// Responses with logprobs to compute.
#[derive(Clone, Debug)]
pub struct Logprobs {
    /// Prompts and responses.
    pub sequences: TokenLists,
    /// The tokens of each prompt.
    pub prompt_token_counts: Vec<usize>,
    /// Responses at a time.
    pub batch_size: usize,
}

/// Conversations with rewards to compute.
#[derive(Clone, Debug)]
pub struct Rewards {
    /// The conversations.
    pub sequences: TokenLists,
    /// Conversations at a time.
    pub batch_size: usize,
}

/// The result of a computation.
#[derive(Clone, Debug)]
pub enum Found {
    /// Sampled responses.
    Samples(Generated),
    /// Logprobs or rewards.
    Numbers(Numbers),
}

/// Numbers of a model, one for each sequence.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Logprobs in nats, or rewards.
    pub values: Vec<f64>,
    /// The first parameter of the model that is not finite; only looked for if a value is not.
    pub broken: Option<String>,
    /// The folder of the model, for errors.
    pub folder: PathBuf,
}

impl Found {
    /// The sampled responses.
    ///
    /// # Errors
    /// An internal error for numbers.
    pub fn samples(self) -> Result<Generated, OperatorError> {
        match self {
            Self::Samples(generated) => Ok(generated),
            Self::Numbers(_) => Err(OperatorError::internal(PLACE, "expected sampled responses, found numbers")),
        }
    }

    /// The `count` numbers.
    ///
    /// # Errors
    /// An internal error for samples or another number of numbers.
    pub fn numbers(self, count: usize) -> Result<Numbers, OperatorError> {
        match self {
            Self::Numbers(numbers) if numbers.values.len() == count => Ok(numbers),
            Self::Numbers(numbers) => {
                let problem = format!("expected {count} numbers, one for each sequence, found {}", numbers.values.len());
                Err(OperatorError::internal(PLACE, problem))
            }
            Self::Samples(_) => Err(OperatorError::internal(PLACE, "expected numbers, found sampled responses")),
        }
    }
}

/// A model at work, loaded in the form of the work in hand.
pub struct WorkingModel {
    checkpoint: Arc<Checkpoint>,
    device: Device,
    precision: Precision,
    budget: Option<Budget>,
    loaded: Loaded,
}

enum Loaded {
    Nothing,
    Sampling(Box<Generator>),
    Logprobs(Box<CausalLm>),
    Rewards(Box<RewardModel>),
}

impl WorkingModel {
    /// A model without its weights yet. The budget is for the keys and values of responses.
    pub fn new(checkpoint: Arc<Checkpoint>, device: Device, precision: Precision, budget: Option<Budget>) -> Self {
        Self { checkpoint, device, precision, budget, loaded: Loaded::Nothing }
    }

    /// Loads the weights in the form for a job, unless they are loaded so.
    ///
    /// # Errors
    /// A model that cannot be loaded or does not fit into memory.
    pub fn load(&mut self, job: &Job) -> Result<(), OperatorError> {
        match (job, &self.loaded) {
            (Job::Samples(_), Loaded::Sampling(_)) | (Job::Logprobs(_), Loaded::Logprobs(_)) | (Job::Rewards(_), Loaded::Rewards(_)) => {
                return Ok(());
            }
            _ => {}
        }
        // Two forms of the model need twice the memory.
        self.loaded = Loaded::Nothing;
        self.loaded = match job {
            Job::Samples(samples) => Loaded::Sampling(Box::new(self.generator(samples.sampling.max_new_tokens)?)),
            Job::Logprobs(_) => Loaded::Logprobs(Box::new(self.checkpoint.load(&self.device)?.in_precision(self.precision))),
            Job::Rewards(_) => Loaded::Rewards(Box::new(self.checkpoint.load_reward_model(&self.device)?.in_precision(self.precision))),
        };
        Ok(())
    }

    /// The model to sample from.
    fn generator(&self, max_new_tokens: usize) -> Result<Generator, OperatorError> {
        let bytes = self.budget.map(|budget| memory_budget::cache_bytes(budget, &self.checkpoint, max_new_tokens)).transpose()?;
        let generator = Generator::load(&self.checkpoint, &self.device, self.precision)?;
        // Above the largest address there is no limit of ours.
        Ok(match bytes {
            Some(bytes) => generator.within(usize::try_from(bytes).unwrap_or(usize::MAX)),
            None => generator,
        })
    }

    /// Does a job, and counts the time of its computation. `observe` hears of sampled tokens.
    ///
    /// # Errors
    /// As [`WorkingModel::load`], or a failed computation.
    pub fn compute(&mut self, job: &Job, time: &DeviceTime, observe: &mut (dyn FnMut(usize) + Send)) -> Result<Found, OperatorError> {
        self.load(job)?;
        match job {
            Job::Samples(samples) => self.sample(samples, time, observe),
            Job::Logprobs(Logprobs { sequences, prompt_token_counts, batch_size }) => {
                let Loaded::Logprobs(model) = &self.loaded else { return Err(wrong_form()) };
                let responses = Responses::new(sequences.clone(), prompt_token_counts.clone())?;
                let rows: Vec<usize> = (0..responses.rows()).collect();
                let values = time.measure(|| training::response_logprobs(model, &responses, &rows, *batch_size))?;
                let broken = if all_finite(&values) { None } else { broken_parameter(&**model) };
                Ok(self.numbers(values, broken))
            }
            Job::Rewards(Rewards { sequences, batch_size }) => {
                let Loaded::Rewards(model) = &self.loaded else { return Err(wrong_form()) };
                let rows: Vec<usize> = (0..sequences.rows()).collect();
                let values = time.measure(|| training::rewards(model, sequences, &rows, *batch_size))?;
                let broken = if all_finite(&values) { None } else { broken_parameter(&**model) };
                Ok(self.numbers(values, broken))
            }
        }
    }

    fn numbers(&self, values: Vec<f64>, broken: Option<String>) -> Found {
        Found::Numbers(Numbers { values, broken, folder: self.checkpoint.folder().to_path_buf() })
    }

    fn sample(&mut self, samples: &Samples, time: &DeviceTime, observe: &mut (dyn FnMut(usize) + Send)) -> Result<Found, OperatorError> {
        let stop = StopStrings::new(&self.checkpoint.tokenizer, &samples.stop, samples.stop_after_tokens);
        let Loaded::Sampling(generator) = std::mem::replace(&mut self.loaded, Loaded::Nothing) else { return Err(wrong_form()) };
        let generator = generator.stopping_at(stop);
        let batch_size = samples.batch_size.unwrap_or_else(|| backend_for(&self.device).sequences_at_once(self.precision));
        let mut each = |tokens| {
            observe(tokens);
            ControlFlow::Continue(())
        };
        let generated = time.measure(|| generator.generate(&samples.prompts, &samples.seeds, &samples.sampling, batch_size, &mut each))?;
        self.loaded = Loaded::Sampling(Box::new(generator));
        Ok(Found::Samples(generated))
    }
}

fn wrong_form() -> OperatorError {
    OperatorError::internal(PLACE, "a model was loaded in another form")
}

fn all_finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}
