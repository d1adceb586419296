//! Sampling responses to many prompts, by whichever engine the backend has. Knows text only as stop
//! strings.

use burn::module::Module;
use burn::tensor::Device;

use super::cpu::CpuEngine;
use super::engine::{Engine, Limits};
#[cfg(feature = "gpu")]
use super::gpu::GpuEngine;
use super::penalties::Present;
use super::reference::ReferenceEngine;
use super::response::{ActiveResponse, FinishReason};
use super::{GenerationError, Observe, Penalties, Sampling, StopStrings};
use crate::compute::{CausalLm, Precision, SamplingModel, backend_for};
#[cfg(feature = "gpu")]
use crate::compute::{GpuDecoder, GpuElement};
use crate::model::{Checkpoint, ModelError};
use crate::token_lists::TokenLists;

/// Sampled responses: the first prompt's in the order of its seeds, then the second's, and so on.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Prompt and response of each row.
    pub sequences: TokenLists,
    /// How many tokens of each row are the prompt's.
    pub prompt_token_counts: Vec<usize>,
    /// Why each response ended.
    pub finish_reasons: Vec<FinishReason>,
    /// Each response's log probability in nats, end token included, under the distribution it was
    /// sampled from.
    pub logprobs: Vec<f64>,
    /// The log probability of each of a response's tokens: their sum is that of `logprobs`.
    pub token_logprobs: Vec<Vec<f32>>,
    /// The end of each response's text from the stop string on that ended it; empty without one.
    /// The response's text ends before it, its tokens with the one that completes the stop string.
    pub cuts: Vec<String>,
}

/// A language model, ready to be sampled from.
#[derive(Debug)]
pub struct Generator {
    engine: Box<dyn Engine>,
    cache_bytes: usize,
    stop: Option<StopStrings>,
}

impl Sampling {
    /// The likeliest tokens of a checkpoint's own distribution, at most so many.
    pub fn greedy(checkpoint: &Checkpoint, max_new_tokens: usize) -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            penalties: Penalties { repetition: 1.0, presence: 0.0 },
            min_new_tokens: 0,
            max_new_tokens,
            eos: checkpoint.generation.eos_token_ids.clone(),
            vocabulary_size: checkpoint.tokenizer.vocabulary_size(),
            max_total_tokens: checkpoint.config.longest_sequence().0,
        }
    }
}

impl Generator {
    /// The fastest engine there is for `device`, with a checkpoint's weights, computed in this
    /// precision. Weights go to a GPU as its engine keeps them.
    ///
    /// # Errors
    /// When a weight cannot be read.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self, GenerationError> {
        Ok(Self::with_model(backend_for(device).load_sampling_model(checkpoint, device, precision)?))
    }

    /// An engine for a model, on the model's device and in its precision. On the CPU it lays the
    /// weights out anew: another owner of the model keeps them in memory twice.
    ///
    /// # Errors
    /// When a weight is not f32.
    pub fn new(model: CausalLm) -> Result<Self, GenerationError> {
        let model = without_graph(model);
        Ok(Self::with_model(backend_for(&model.device()).sampling_model(model)?))
    }

    /// The reference on any device. Other engines are compared with it.
    pub fn with_reference(model: CausalLm) -> Self {
        Self::with_model(SamplingModel::Reference(Box::new(without_graph(model))))
    }

    /// Kernels of our own on a GPU known to cubecl, with the weights of a model on any device.
    ///
    /// # Errors
    /// When a weight cannot be read.
    #[cfg(feature = "gpu")]
    pub fn on_gpu(model: CausalLm, gpu: &cubecl::Device, element: GpuElement) -> Result<Self, GenerationError> {
        let decoder = GpuDecoder::new(without_graph(model), gpu, element)?;
        Ok(Self::with_model(SamplingModel::Gpu(Box::new(decoder))))
    }

    fn with_model(model: SamplingModel) -> Self {
        let engine: Box<dyn Engine> = match model {
            SamplingModel::Cpu(decoder) => Box::new(CpuEngine::new(*decoder)),
            #[cfg(feature = "gpu")]
            SamplingModel::Gpu(decoder) => Box::new(GpuEngine::new(*decoder)),
            SamplingModel::Reference(model) => Box::new(ReferenceEngine::new(*model)),
        };
        Self { cache_bytes: engine.cache_bytes(None), engine, stop: None }
    }

    /// The same, with room for so many bytes of keys and values: fewer or more responses at a time,
    /// and the same ones. (A GPU takes no more than its default, and the reference samples as many
    /// as are asked for.)
    #[must_use]
    pub fn within(mut self, cache_bytes: usize) -> Self {
        self.cache_bytes = self.engine.cache_bytes(Some(cache_bytes));
        self
    }

    /// The same, ending responses at these texts too.
    #[must_use]
    pub fn stopping_at(self, stop: Option<StopStrings>) -> Self {
        Self { stop, ..self }
    }

    /// Samples a response for every seed of every prompt, `batch_size` responses at a time.
    ///
    /// A response depends on its seed and its prompt alone: on the CPU to the last bit, and so on a
    /// GPU in bf16 if the model's sizes are multiples of 16; otherwise, and with the reference,
    /// logits differ in the last bits between batches: equal results are only promised for equal
    /// calls.
    ///
    /// # Errors
    /// A prompt without room for a response, settings out of range, logits that are not finite, or
    /// an interruption.
    pub fn generate(
        &self,
        prompts: &TokenLists,
        seeds: &[Vec<[u8; 32]>],
        sampling: &Sampling,
        batch_size: usize,
        observe: Observe<'_>,
    ) -> Result<Generated, GenerationError> {
        sampling.check()?;
        let responses = responses(prompts, seeds, sampling, self.stop.as_ref())?;
        self.run(prompts, responses, sampling, batch_size, observe)
    }

    /// Samples responses of exactly these `lengths`, one list a prompt, whatever the tokens: for
    /// measurements. Otherwise as [`Self::generate`].
    ///
    /// # Errors
    /// As for [`Self::generate`].
    pub fn generate_lengths(
        &self,
        prompts: &TokenLists,
        lengths: &[Vec<usize>],
        sampling: &Sampling,
        batch_size: usize,
        observe: Observe<'_>,
    ) -> Result<Generated, GenerationError> {
        sampling.check()?;
        let sampling = Sampling { eos: Vec::new(), ..sampling.clone() };
        let seed = |number: usize| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
            seed
        };
        let seeds: Vec<Vec<[u8; 32]>> = lengths.iter().map(|lengths| (0..lengths.len()).map(seed).collect()).collect();
        let mut responses = responses(prompts, &seeds, &sampling, None)?;
        responses.iter_mut().zip(lengths.iter().flatten()).for_each(|(response, length)| response.limit = response.limit.min(*length));
        self.run(prompts, responses, &sampling, batch_size, observe)
    }

    fn run(
        &self,
        prompts: &TokenLists,
        mut responses: Vec<ActiveResponse>,
        sampling: &Sampling,
        batch_size: usize,
        observe: Observe<'_>,
    ) -> Result<Generated, GenerationError> {
        let limits = Limits { batch_size, cache_bytes: self.cache_bytes };
        self.engine.sample(prompts, &mut responses, sampling, limits, observe)?;
        collect(prompts, responses)
    }
}

/// A model in training is sampled from without recording a graph.
fn without_graph(model: CausalLm) -> CausalLm {
    model.valid()
}

/// A response for every seed of every prompt, nothing of it sampled yet.
fn responses(
    prompts: &TokenLists,
    seeds: &[Vec<[u8; 32]>],
    sampling: &Sampling,
    stop: Option<&StopStrings>,
) -> Result<Vec<ActiveResponse>, GenerationError> {
    if seeds.len() != prompts.rows() {
        return Err(GenerationError::Seeds { prompts: prompts.rows(), seeds: seeds.len() });
    }
    let mut responses = Vec::new();
    for ((prompt, asked), seeds) in prompts.iter().enumerate().zip(seeds) {
        let tokens = asked.len();
        let limit = sampling.max_total_tokens;
        if tokens >= limit {
            return Err(GenerationError::PromptTooLong { row: prompt, tokens, limit });
        }
        let limit = sampling.max_new_tokens.min(limit - tokens);
        let response = |seed: &[u8; 32]| {
            let text = stop.map(|stop| stop.behind(asked));
            ActiveResponse::new(prompt, *seed, limit, Present::behind(asked, sampling.penalties), text)
        };
        responses.extend(seeds.iter().map(response));
    }
    Ok(responses)
}

/// Puts each response behind its prompt.
fn collect(prompts: &TokenLists, responses: Vec<ActiveResponse>) -> Result<Generated, GenerationError> {
    let mut ids = Vec::new();
    let mut lengths = Vec::with_capacity(responses.len());
    let mut prompt_token_counts = Vec::with_capacity(responses.len());
    let mut finish_reasons = Vec::with_capacity(responses.len());
    let mut logprobs = Vec::with_capacity(responses.len());
    let mut token_logprobs = Vec::with_capacity(responses.len());
    let mut cuts = Vec::with_capacity(responses.len());
    for response in responses {
        let prompt = prompts.row(response.prompt).map_err(ModelError::from)?;
        ids.extend_from_slice(prompt);
        ids.extend_from_slice(&response.tokens);
        lengths.push(prompt.len() + response.tokens.len());
        prompt_token_counts.push(prompt.len());
        finish_reasons.push(response.finished.unwrap_or(FinishReason::Length));
        logprobs.push(response.logprob);
        token_logprobs.push(response.token_logprobs);
        cuts.push(response.cut);
    }
    let sequences = TokenLists::from_lengths(ids, &lengths).map_err(ModelError::from)?;
    Ok(Generated { sequences, prompt_token_counts, finish_reasons, logprobs, token_logprobs, cuts })
}
