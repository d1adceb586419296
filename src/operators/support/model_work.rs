//! The work of models for one part of a table: samples, logprobs or rewards of token ids.
//!
//! The same code computes it in this process and in an executor of a cluster. Knows token ids and
//! the settings of sampling, neither tables nor operators.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use super::memory_budget::{self, Budget};
use super::model_folders::ModelFolders;
use super::{Context, DeviceTime, OperatorError};
use crate::compute::{CausalLm, Precision, RewardModel, backend_for};
use crate::generation::{Generated, Generator, Sampling, StopStrings};
use crate::model::Checkpoint;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::resources::Resources;
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
    resources: Resources,
    loaded: Loaded,
}

enum Loaded {
    Nothing,
    Sampling(Box<Generator>),
    Logprobs(Box<CausalLm>),
    Rewards(Box<RewardModel>),
}

impl WorkingModel {
    /// A model without its weights yet. Of the resources only the memory counts.
    pub fn new(checkpoint: Arc<Checkpoint>, device: Device, precision: Precision, resources: Resources) -> Self {
        Self { checkpoint, device, precision, resources, loaded: Loaded::Nothing }
    }

    /// Does a job, and counts the time of its computation. `observe` hears of sampled tokens.
    ///
    /// # Errors
    /// A model that cannot be loaded or does not fit into memory, or a failed computation.
    pub fn compute(&mut self, job: &Job, time: &DeviceTime, observe: &mut (dyn FnMut(usize) + Send)) -> Result<Found, OperatorError> {
        match job {
            Job::Samples(samples) => self.sample(samples, time, observe),
            Job::Logprobs(Logprobs { sequences, prompt_token_counts, batch_size }) => {
                let responses = Responses::new(sequences.clone(), prompt_token_counts.clone())?;
                let rows: Vec<usize> = (0..responses.rows()).collect();
                let model = self.causal_lm()?;
                let values = time.measure(|| training::response_logprobs(model, &responses, &rows, *batch_size))?;
                let broken = if all_finite(&values) { None } else { broken_parameter(model) };
                Ok(self.numbers(values, broken))
            }
            Job::Rewards(Rewards { sequences, batch_size }) => {
                let rows: Vec<usize> = (0..sequences.rows()).collect();
                let model = self.reward_model()?;
                let values = time.measure(|| training::rewards(model, sequences, &rows, *batch_size))?;
                let broken = if all_finite(&values) { None } else { broken_parameter(model) };
                Ok(self.numbers(values, broken))
            }
        }
    }

    fn numbers(&self, values: Vec<f64>, broken: Option<String>) -> Found {
        Found::Numbers(Numbers { values, broken, folder: self.checkpoint.folder().to_path_buf() })
    }

    fn sample(&mut self, samples: &Samples, time: &DeviceTime, observe: &mut (dyn FnMut(usize) + Send)) -> Result<Found, OperatorError> {
        let stop = StopStrings::new(&self.checkpoint.tokenizer, &samples.stop, samples.stop_after_tokens);
        let generator = self.generator(samples.sampling.max_new_tokens)?.stopping_at(stop);
        let batch_size = samples.batch_size.unwrap_or_else(|| backend_for(&self.device).sequences_at_once(self.precision));
        let mut each = |tokens| {
            observe(tokens);
            ControlFlow::Continue(())
        };
        let generated = time.measure(|| generator.generate(&samples.prompts, &samples.seeds, &samples.sampling, batch_size, &mut each))?;
        self.loaded = Loaded::Sampling(Box::new(generator));
        Ok(Found::Samples(generated))
    }

    /// Takes out the model to sample from.
    fn generator(&mut self, max_new_tokens: usize) -> Result<Generator, OperatorError> {
        if let Loaded::Sampling(generator) = std::mem::replace(&mut self.loaded, Loaded::Nothing) {
            return Ok(*generator);
        }
        let budget = Budget::new(&self.resources, self.device == Device::flex());
        let bytes = budget.map(|budget| memory_budget::cache_bytes(budget, &self.checkpoint, max_new_tokens)).transpose()?;
        let generator = Generator::load(&self.checkpoint, &self.device, self.precision)?;
        // Above the largest address there is no limit of ours.
        Ok(match bytes {
            Some(bytes) => generator.within(usize::try_from(bytes).unwrap_or(usize::MAX)),
            None => generator,
        })
    }

    fn causal_lm(&mut self) -> Result<&CausalLm, OperatorError> {
        if !matches!(self.loaded, Loaded::Logprobs(_)) {
            // Two forms of the model need twice the memory.
            self.loaded = Loaded::Nothing;
            self.loaded = Loaded::Logprobs(Box::new(self.checkpoint.load(&self.device)?.in_precision(self.precision)));
        }
        match &self.loaded {
            Loaded::Logprobs(model) => Ok(model),
            _ => Err(OperatorError::internal(PLACE, "a model was loaded in another form")),
        }
    }

    fn reward_model(&mut self) -> Result<&RewardModel, OperatorError> {
        if !matches!(self.loaded, Loaded::Rewards(_)) {
            self.loaded = Loaded::Nothing;
            self.loaded = Loaded::Rewards(Box::new(self.checkpoint.load_reward_model(&self.device)?.in_precision(self.precision)));
        }
        match &self.loaded {
            Loaded::Rewards(model) => Ok(model),
            _ => Err(OperatorError::internal(PLACE, "a reward model was loaded in another form")),
        }
    }
}

fn all_finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// A model of a task: where it comes from, opened and loaded when it is needed.
pub struct TaskModel {
    origin: Origin,
    checkpoint: Option<Arc<Checkpoint>>,
    working: Option<WorkingModel>,
}

/// Where a model of a task comes from.
enum Origin {
    Slot(Slot),
    Folder(PathBuf),
}

impl TaskModel {
    /// The model in a slot of the task.
    pub fn of_slot(slot: Slot) -> Self {
        Self { origin: Origin::Slot(slot), checkpoint: None, working: None }
    }

    /// The model in a folder.
    pub fn of_folder(folder: &Path) -> Self {
        Self { origin: Origin::Folder(folder.to_path_buf()), checkpoint: None, working: None }
    }

    /// The model, opened but not loaded. Its chat template has the pipeline's settings.
    ///
    /// # Errors
    /// A file that is missing or wrong.
    pub fn checkpoint(&mut self, context: &Context) -> Result<Arc<Checkpoint>, OperatorError> {
        if let Some(checkpoint) = &self.checkpoint {
            return Ok(checkpoint.clone());
        }
        let checkpoint = match &self.origin {
            Origin::Slot(slot) => context.checkpoint(*slot)?,
            Origin::Folder(folder) => Checkpoint::open(folder)?.with_template_settings(context.task.template_settings()),
        };
        Ok(self.checkpoint.insert(Arc::new(checkpoint)).clone())
    }

    /// The folders of the model for another process.
    ///
    /// # Errors
    /// An unfinished model, or a missing base.
    pub fn folders(&self, context: &Context) -> Result<ModelFolders, OperatorError> {
        match &self.origin {
            Origin::Slot(slot) => context.model_folders(*slot),
            Origin::Folder(folder) => ModelFolders::of(folder),
        }
    }

    /// The model at work in this process.
    ///
    /// # Errors
    /// As [`TaskModel::checkpoint`], or a device that is not there.
    pub fn working(&mut self, context: &Context) -> Result<&mut WorkingModel, OperatorError> {
        let checkpoint = self.checkpoint(context)?;
        if self.working.is_none() {
            let resources = context.task.resources.clone();
            self.working = Some(WorkingModel::new(checkpoint, context.device()?, context.precision(), resources));
        }
        self.working.as_mut().ok_or_else(|| OperatorError::internal(PLACE, "a model went away"))
    }
}
