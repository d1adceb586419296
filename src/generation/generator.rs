//! Sampling responses to many prompts, by whichever engine the model's device has. Knows nothing of text.

#[cfg(feature = "gpu")]
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

#[cfg(feature = "gpu")]
use super::gpu::Gpu;
use super::processor::Processor;
use super::{Draw, GenerationError, Observe, Sampler, Sampling, batch, continuous};
use crate::kernels;
use crate::model::{CausalLm, Checkpoint, CpuDecoder, Sequences};
#[cfg(feature = "gpu")]
use crate::model::{GpuCache, GpuDecoder, GpuElement};

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// With one of the end tokens, which is its last token.
    Stop,
    /// At the limit of new or total tokens, without an end token.
    Length,
}

impl FinishReason {
    /// `stop` or `length`, as in the responses table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Sampled responses: the first prompt's in the order of its seeds, then the second's, and so on.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Prompt and response of each row.
    pub sequences: Sequences,
    /// How many tokens of each row are the prompt's.
    pub prompt_token_counts: Vec<usize>,
    /// Why each response ended.
    pub finish_reasons: Vec<FinishReason>,
    /// Each response's log probability in nats, end token included, under the distribution it was sampled from.
    pub logprobs: Vec<f64>,
}

/// One response that is being, or has been, sampled.
pub(super) struct Response {
    /// The row of its prompt.
    pub(super) prompt: usize,
    sampler: Sampler,
    /// Those drawn so far.
    pub(super) tokens: Vec<i32>,
    logprob: f64,
    /// The most tokens it may have.
    pub(super) limit: usize,
    /// `None` while it grows.
    pub(super) finished: Option<FinishReason>,
}

/// What keys and values take at most on the processor, unless there is less memory.
const CACHE_BYTES: usize = 2 << 30;

/// What they take at most on a GPU.
#[cfg(feature = "gpu")]
const GPU_CACHE_BYTES: usize = 4 << 30;

/// A language model, ready to be sampled from.
#[derive(Debug)]
pub struct Generator {
    engine: Engine,
    device: Device,
    cache_bytes: usize,
}

#[derive(Debug)]
enum Engine {
    /// Sequences come and go one by one, in kernels of our own.
    Processor(Box<CpuDecoder>),
    /// The same, in kernels of our own for GPUs; with the cache of the last call.
    #[cfg(feature = "gpu")]
    Gpu(Box<(GpuDecoder, Mutex<Option<GpuCache>>)>),
    /// Batches of rows, by burn.
    Burn(Box<CausalLm>),
}

impl Generator {
    /// The fastest engine there is for `device`, with a checkpoint's weights. These go to a GPU as its engine keeps them.
    ///
    /// # Errors
    /// When a weight cannot be read.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self, GenerationError> {
        #[cfg(feature = "cuda")]
        if *device == Device::cuda(0) {
            let gpu = cubecl::Device::Cuda(cubecl::device::CudaDevice::new(0));
            return Self::on_gpu(checkpoint.load(&Device::flex())?, &gpu, GpuElement::Bf16);
        }
        Self::new(checkpoint.load(device)?)
    }

    /// Where it expects prompts and puts responses.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The fastest engine there is for a model on the processor, and burn's for others. On the processor it lays the weights out anew; what else holds the
    /// model keeps them in memory twice.
    ///
    /// # Errors
    /// When a weight is not f32.
    pub fn new(model: CausalLm) -> Result<Self, GenerationError> {
        let model = without_graph(model);
        match model.device() {
            device if device == Device::flex() => {
                let engine = Engine::Processor(Box::new(CpuDecoder::of_causal_lm(model)?));
                Ok(Self { engine, device, cache_bytes: CACHE_BYTES })
            }
            _ => Ok(Self::with_burn(model)),
        }
    }

    /// Kernels of our own on a GPU that cubecl knows, with the weights of a model that may be elsewhere.
    ///
    /// # Errors
    /// When a weight cannot be read.
    #[cfg(feature = "gpu")]
    pub fn on_gpu(model: CausalLm, gpu: &cubecl::Device, element: GpuElement) -> Result<Self, GenerationError> {
        let model = without_graph(model);
        let device = model.device();
        let engine = Engine::Gpu(Box::new((GpuDecoder::new(model, gpu, element)?, Mutex::default())));
        Ok(Self { engine, device, cache_bytes: GPU_CACHE_BYTES })
    }

    /// burn's operations on any device: what the processor's engine is compared with.
    pub fn with_burn(model: CausalLm) -> Self {
        let model = without_graph(model);
        Self { device: model.device(), engine: Engine::Burn(Box::new(model)), cache_bytes: CACHE_BYTES }
    }

    /// The same, with at most so many bytes of keys and values: fewer responses at a time, and the same ones. (With burn, as many as are asked for.)
    #[must_use]
    pub fn within(mut self, cache_bytes: usize) -> Self {
        self.cache_bytes = self.cache_bytes.min(cache_bytes);
        self
    }

    /// Samples a response for every seed of every prompt, `batch_size` responses at a time.
    ///
    /// A response depends on its seed and its prompt alone: on the processor to the last bit, and so on a GPU in bf16 if the model's sizes are multiples of 16;
    /// otherwise, and with burn, logits differ in the last bits between batches, so that equal results are only promised for equal calls.
    ///
    /// # Errors
    /// A prompt that leaves no room for a response, settings out of range, logits that are not finite, or an interruption.
    pub fn generate(
        &self,
        prompts: &Sequences,
        seeds: &[Vec<[u8; 32]>],
        sampling: &Sampling,
        batch_size: usize,
        observe: Observe<'_>,
    ) -> Result<Generated, GenerationError> {
        sampling.check()?;
        let responses = responses(prompts, seeds, sampling)?;
        self.run(prompts, responses, sampling, batch_size, observe)
    }

    /// Samples responses that are as long as `lengths` says, one list a prompt, whatever is drawn: for measurements. Otherwise as [`Self::generate`].
    ///
    /// # Errors
    /// As for [`Self::generate`].
    pub fn generate_lengths(
        &self,
        prompts: &Sequences,
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
        let mut responses = responses(prompts, &seeds, &sampling)?;
        responses.iter_mut().zip(lengths.iter().flatten()).for_each(|(response, length)| response.limit = response.limit.min(*length));
        self.run(prompts, responses, &sampling, batch_size, observe)
    }

    fn run(
        &self,
        prompts: &Sequences,
        mut responses: Vec<Response>,
        sampling: &Sampling,
        batch_size: usize,
        observe: Observe<'_>,
    ) -> Result<Generated, GenerationError> {
        let prompt_ids = read_integers(prompts.token_ids().clone())?;
        let mut rest = &prompt_ids[..];
        let rows = prompts.lengths().iter().map(|&length| {
            // The lengths add up to the ids.
            let (row, after) = rest.split_at(length);
            rest = after;
            row
        });
        let rows: Vec<&[i32]> = rows.collect();
        match &self.engine {
            Engine::Processor(decoder) => {
                let decoder = Processor::new(decoder, self.cache_bytes);
                kernels::awake(|| continuous::run(decoder, &rows, &mut responses, sampling, batch_size, observe))?;
            }
            #[cfg(feature = "gpu")]
            Engine::Gpu(engine) => {
                let (decoder, cache) = &**engine;
                let taken = || cache.lock().unwrap_or_else(PoisonError::into_inner);
                let earlier = taken().take();
                let mut gpu = Gpu::new(decoder, &rows, &responses, batch_size, self.cache_bytes, earlier);
                continuous::run(&mut gpu, &rows, &mut responses, sampling, batch_size, observe)?;
                // After an error some sequences are still open, and the cache is not kept.
                *taken() = Some(gpu.into_cache());
            }
            Engine::Burn(model) => batch::run(model, prompts, &mut responses, sampling, batch_size, observe)?,
        }
        collect(&rows, responses, &self.device)
    }
}

/// A model in training is sampled from without recording a graph.
fn without_graph(model: CausalLm) -> CausalLm {
    model.valid()
}

/// A response for every seed of every prompt, nothing of it sampled yet.
fn responses(prompts: &Sequences, seeds: &[Vec<[u8; 32]>], sampling: &Sampling) -> Result<Vec<Response>, GenerationError> {
    if seeds.len() != prompts.rows() {
        return Err(GenerationError::Seeds { prompts: prompts.rows(), seeds: seeds.len() });
    }
    let mut responses = Vec::new();
    for ((prompt, &tokens), seeds) in prompts.lengths().iter().enumerate().zip(seeds) {
        let limit = sampling.max_total_tokens;
        if tokens >= limit {
            return Err(GenerationError::PromptTooLong { row: prompt, tokens, limit });
        }
        let limit = sampling.max_new_tokens.min(limit - tokens);
        responses.extend(seeds.iter().map(|seed| Response {
            prompt,
            sampler: Sampler::new(*seed),
            tokens: Vec::new(),
            logprob: 0.0,
            limit,
            finished: None,
        }));
    }
    Ok(responses)
}

impl Response {
    /// Draws the next token; nothing of the logits is left then.
    pub(super) fn draw(&mut self, logits: &mut [f32], sampling: &Sampling) -> Result<(), GenerationError> {
        let draw = self.sampler.draw(logits, sampling).map_err(|(token, logit)| self.broken(token, logit))?;
        self.accept(draw, sampling);
        Ok(())
    }

    /// The number that its next token is drawn with, where that is done elsewhere: in [0, 1).
    #[cfg(feature = "gpu")]
    pub(super) fn uniform(&mut self) -> f32 {
        // The nearest f32 may be 1.
        (self.sampler.uniform() as f32).min(1.0_f32.next_down())
    }

    /// Takes its next token.
    pub(super) fn accept(&mut self, draw: Draw, sampling: &Sampling) {
        self.tokens.push(draw.token);
        self.logprob += draw.logprob;
        if sampling.eos.contains(&draw.token) {
            self.finished = Some(FinishReason::Stop);
        } else if self.tokens.len() >= self.limit {
            self.finished = Some(FinishReason::Length);
        }
    }

    /// That the logits of its next token are not finite, of which that token's is the first.
    pub(super) fn broken(&self, token: usize, logit: f32) -> GenerationError {
        GenerationError::Logits { row: self.prompt, step: self.tokens.len(), token, logit }
    }
}

/// Puts each response behind its prompt.
fn collect(prompts: &[&[i32]], responses: Vec<Response>, device: &Device) -> Result<Generated, GenerationError> {
    let (mut ids, mut lengths) = (Vec::new(), Vec::with_capacity(responses.len()));
    let (mut prompt_token_counts, mut finish_reasons, mut logprobs) = (Vec::new(), Vec::new(), Vec::new());
    for response in responses {
        let prompt = prompts[response.prompt];
        ids.extend_from_slice(prompt);
        ids.extend_from_slice(&response.tokens);
        lengths.push(prompt.len() + response.tokens.len());
        prompt_token_counts.push(prompt.len());
        finish_reasons.push(response.finished.unwrap_or(FinishReason::Length));
        logprobs.push(response.logprob);
    }
    let count = ids.len();
    let ids = Tensor::from_data(TensorData::new(ids, [count]), (device, DType::I32));
    Ok(Generated { sequences: Sequences::new(ids, lengths)?, prompt_token_counts, finish_reasons, logprobs })
}

fn read_integers(tensor: Tensor<1, Int>) -> Result<Vec<i32>, GenerationError> {
    tensor.try_into_vec_as::<i32>().map_err(|error| GenerationError::Device(error.to_string()))
}
