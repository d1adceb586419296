//! Batched decoding: each prompt is read once, its responses grow together, finished ones leave the batch. Knows nothing of text.
//!
//! Rows of a batch stand left-padded, so that every step adds one column. Batches are a function of the prompts' lengths alone.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::{GenerationError, Sampler, Sampling};
use crate::model::{CausalLm, KvCache, Padding, Placement, Sequences};

/// Finished rows leave the batch when they are this share of it: leaving costs a copy of the cache.
const FINISHED_SHARE: usize = 8;

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
struct Response {
    prompt: usize,
    sampler: Sampler,
    tokens: Vec<i32>,
    logprob: f64,
    limit: usize,
    finished: Option<FinishReason>,
}

/// Samples a response for every seed of every prompt, `batch_size` responses at a time.
///
/// `observe` is told how many tokens there are after every step, and may stop the work.
///
/// A response depends on its seed and its prompt's logits alone. Those differ in the last bits between batch sizes, so equal results
/// are only promised for equal calls.
///
/// # Errors
/// A prompt that leaves no room for a response, settings out of range, logits that are not finite, or an interruption.
pub fn generate(
    model: &CausalLm,
    prompts: &Sequences,
    seeds: &[Vec<[u8; 32]>],
    sampling: &Sampling,
    batch_size: usize,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Generated, GenerationError> {
    sampling.check()?;
    // A model in training is sampled from without recording a graph; its weights are shared, not copied.
    let model = &model.valid();
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
            tokens: Vec::with_capacity(limit),
            logprob: 0.0,
            limit,
            finished: None,
        }));
    }
    let mut waiting: Vec<&mut Response> = responses.iter_mut().collect();
    waiting.sort_by_key(|response| prompts.lengths().get(response.prompt).copied());
    let mut waiting = waiting.into_iter();
    let mut token_count = 0;
    loop {
        let rows: Vec<&mut Response> = waiting.by_ref().take(batch_size.max(1)).collect();
        if rows.is_empty() {
            return collect(prompts, responses, &model.device());
        }
        let mut batch = Batch::prefill(model, prompts, rows)?;
        loop {
            token_count += batch.draw(sampling)?;
            if observe(token_count).is_break() {
                return Err(GenerationError::Interrupted);
            }
            batch.drop_finished();
            if batch.rows.is_empty() {
                break;
            }
            batch.step()?;
        }
    }
}

/// Responses that grow together, one a row of the cache.
struct Batch<'a> {
    model: &'a CausalLm,
    device: Device,
    rows: Vec<&'a mut Response>,
    /// How many columns of the cache stand before each row's first token.
    padding: Vec<usize>,
    cache: KvCache,
    /// `[rows, vocabulary]`: what the next tokens are drawn from.
    logits: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// Reads each prompt once. `rows` are ordered by prompt.
    fn prefill(model: &'a CausalLm, prompts: &Sequences, rows: Vec<&'a mut Response>) -> Result<Self, GenerationError> {
        let device = model.device();
        let mut distinct: Vec<usize> = rows.iter().map(|row| row.prompt).collect();
        distinct.dedup();
        let tokens = prompts.gather(&distinct, Padding::Left)?;
        let length_of = |prompt: &usize| prompts.lengths().get(*prompt).copied().unwrap_or_default();
        let lengths: Vec<usize> = distinct.iter().map(length_of).collect();
        let mut cache = model.new_cache();
        let columns = tokens.dims()[1];
        let hidden = model.hidden(tokens, &Placement::left_padded(&lengths, &device), Some(&mut cache)).narrow(1, columns - 1, 1);

        // From one row a prompt to one row a response.
        let mut sources = Vec::with_capacity(rows.len());
        let mut source = 0;
        for row in &rows {
            source += usize::from(distinct.get(source) != Some(&row.prompt));
            sources.push(source);
        }
        cache.select_rows(&sources, &device);
        let sources = integers(sources.into_iter().map(|source| source as i32).collect(), &device);
        let logits = read(model.logits(hidden.select(0, sources)))?;
        let padding = rows.iter().map(|row| columns - length_of(&row.prompt)).collect();
        Ok(Self { model, device, rows, padding, cache, logits })
    }

    /// Draws the next token of every unfinished row and returns how many there were.
    fn draw(&mut self, sampling: &Sampling) -> Result<usize, GenerationError> {
        let vocabulary = self.logits.len() / self.rows.len().max(1);
        let mut drawn = 0;
        for (row, logits) in self.rows.iter_mut().zip(self.logits.chunks_exact(vocabulary.max(1))) {
            if row.finished.is_none() {
                row.draw(logits, sampling)?;
                drawn += 1;
            }
        }
        Ok(drawn)
    }

    /// Takes finished rows out, if there are enough of them to be worth a copy of the cache.
    fn drop_finished(&mut self) {
        let unfinished: Vec<usize> = self.rows.iter().enumerate().filter(|(_, row)| row.finished.is_none()).map(|(row, _)| row).collect();
        let finished = self.rows.len() - unfinished.len();
        if finished == 0 || finished * FINISHED_SHARE < self.rows.len() {
            return;
        }
        if !unfinished.is_empty() {
            self.cache.select_rows(&unfinished, &self.device);
        }
        let mut kept = self.rows.iter().map(|row| row.finished.is_none());
        self.padding.retain(|_| kept.next() == Some(true));
        self.rows.retain(|row| row.finished.is_none());
    }

    /// Feeds the drawn tokens back; a finished row that is still here feeds its last one again, to no effect.
    fn step(&mut self) -> Result<(), GenerationError> {
        let tokens = self.rows.iter().map(|row| row.tokens.last().copied().unwrap_or_default()).collect();
        let tokens = integers(tokens, &self.device).reshape([self.rows.len(), 1]);
        let placement = Placement::next(&self.padding, self.cache.length(), &self.device);
        self.logits = read(self.model.logits(self.model.hidden(tokens, &placement, Some(&mut self.cache))))?;
        Ok(())
    }
}

impl Response {
    fn draw(&mut self, logits: &[f32], sampling: &Sampling) -> Result<(), GenerationError> {
        let draw = self.sampler.draw(logits, sampling);
        let draw = draw.map_err(|(token, logit)| GenerationError::Logits { row: self.prompt, step: self.tokens.len(), token, logit })?;
        self.tokens.push(draw.token);
        self.logprob += draw.logprob;
        if sampling.eos.contains(&draw.token) {
            self.finished = Some(FinishReason::Stop);
        } else if self.tokens.len() >= self.limit {
            self.finished = Some(FinishReason::Length);
        }
        Ok(())
    }
}

/// Puts each response behind its prompt.
fn collect(prompts: &Sequences, responses: Vec<Response>, device: &Device) -> Result<Generated, GenerationError> {
    let prompt_ids = read_integers(prompts.token_ids().clone())?;
    let mut starts = vec![0];
    starts.extend(prompts.lengths().iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    }));
    let mut ids = Vec::new();
    let mut generated = Generated {
        sequences: prompts.clone(),
        prompt_token_counts: Vec::with_capacity(responses.len()),
        finish_reasons: Vec::with_capacity(responses.len()),
        logprobs: Vec::with_capacity(responses.len()),
    };
    let mut lengths = Vec::with_capacity(responses.len());
    for response in responses {
        // `starts` has one more entry than there are prompts, and ends with the number of their ids.
        let prompt = &prompt_ids[starts[response.prompt]..starts[response.prompt + 1]];
        ids.extend_from_slice(prompt);
        ids.extend_from_slice(&response.tokens);
        lengths.push(prompt.len() + response.tokens.len());
        generated.prompt_token_counts.push(prompt.len());
        generated.finish_reasons.push(response.finished.unwrap_or(FinishReason::Length));
        generated.logprobs.push(response.logprob);
    }
    generated.sequences = Sequences::new(integers(ids, device), lengths)?;
    Ok(generated)
}

fn integers(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, DType::I32))
}

fn read_integers(tensor: Tensor<1, Int>) -> Result<Vec<i32>, GenerationError> {
    tensor.try_into_vec_as::<i32>().map_err(|error| GenerationError::Device(error.to_string()))
}

fn read(tensor: Tensor<3>) -> Result<Vec<f32>, GenerationError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| GenerationError::Device(error.to_string()))
}
