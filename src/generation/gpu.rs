//! A GPU as an engine: tokens are sampled there too, and only tokens come back. Knows nothing of
//! prompts or text.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::continuous::{self, SequenceDecoder};
use super::engine::{Engine, Limits};
use super::penalties::Change;
use super::response::ActiveResponse;
use super::{GenerationError, Observe, SampledToken, Sampling};
use crate::compute::{GpuCache, GpuChange, GpuDecoder, GpuSampling, Span};
use crate::token_lists::TokenLists;

/// Prompt tokens of one step.
const PREFILL_TOKENS: usize = 4096;

/// The default limit for keys and values.
const CACHE_BYTES: usize = 4 << 30;

/// A model on a GPU, with the cache of the last call.
#[derive(Debug)]
pub(super) struct GpuEngine {
    decoder: GpuDecoder,
    cache: Mutex<Option<GpuCache>>,
}

impl GpuEngine {
    pub(super) fn new(decoder: GpuDecoder) -> Self {
        Self { decoder, cache: Mutex::default() }
    }

    fn cache(&self) -> MutexGuard<'_, Option<GpuCache>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for GpuEngine {
    fn cache_bytes(&self, room: Option<usize>) -> usize {
        // Allocated as a whole.
        room.map_or(CACHE_BYTES, |room| room.min(CACHE_BYTES))
    }

    fn sample(
        &self,
        prompts: &TokenLists,
        responses: &mut [ActiveResponse],
        sampling: &Sampling,
        limits: Limits,
        observe: Observe<'_>,
    ) -> Result<(), GenerationError> {
        let earlier = self.cache().take();
        let mut sequences = GpuSequences::new(&self.decoder, prompts, responses, limits, earlier);
        continuous::run(&mut sequences, prompts, responses, sampling, limits.batch_size, observe)?;
        // After an error some sequences are still open, and the cache is not kept.
        *self.cache() = Some(sequences.cache);
        Ok(())
    }
}

/// A model with its sequences in the GPU's memory.
struct GpuSequences<'a> {
    decoder: &'a GpuDecoder,
    cache: GpuCache,
    longest_response: usize,
}

impl<'a> GpuSequences<'a> {
    /// With room for as many of the `responses` as go together, and for prompts computed ahead.
    /// Where this would take more than the limit, for fewer at a time, but for one response at
    /// least. Uses an `earlier` cache if it is large enough.
    fn new(decoder: &'a GpuDecoder, prompts: &TokenLists, responses: &[ActiveResponse], limits: Limits, earlier: Option<GpuCache>) -> Self {
        let longest_prompt = prompts.lengths().max().unwrap_or(0);
        let longest_response = responses.iter().map(|response| response.limit).max().unwrap_or(0);
        let places = limits.batch_size.clamp(1, responses.len().max(1));
        let wanted = places * (longest_prompt + longest_response) + PREFILL_TOKENS + longest_prompt;
        // A prompt may lie anywhere: the free memory on one side of it must hold a response.
        let least = longest_prompt + 2 * longest_response;
        let most = limits.cache_bytes / decoder.cache_bytes_per_position().max(1);
        let (positions, sequences) = (wanted.min(most).max(least), places + prompts.rows());
        let cache = earlier.filter(|cache| cache.holds(positions, sequences));
        let cache = cache.unwrap_or_else(|| decoder.new_cache(positions, sequences));
        Self { decoder, cache, longest_response }
    }
}

impl SequenceDecoder for &mut GpuSequences<'_> {
    const PREFILL_TOKENS: usize = PREFILL_TOKENS;
    const PREFILLS_AHEAD: bool = true;

    fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize> {
        let sequence = self.cache.open(prefix, positions)?;
        // However many prompts are read ahead: once no response grows any more, there is room for
        // any.
        let fits = prefix.is_some() || self.cache.has_room(self.longest_response);
        if !fits {
            self.cache.close(sequence);
        }
        fits.then_some(sequence)
    }

    fn close(&mut self, sequence: usize) {
        self.cache.close(sequence);
    }

    fn forward(&mut self, prompts: &[Span<'_>], responses: &[Span<'_>]) -> Result<(), GenerationError> {
        self.decoder.forward(prompts, &mut self.cache)?;
        // A pass of its own: the one with a recording.
        Ok(self.decoder.forward(responses, &mut self.cache)?)
    }

    fn sample(&mut self, responses: Vec<(usize, &mut ActiveResponse)>, sampling: &Sampling) -> Result<(), GenerationError> {
        let (sequences, mut responses): (Vec<usize>, Vec<&mut ActiveResponse>) = responses.into_iter().unzip();
        let uniforms: Vec<f32> = responses.iter_mut().map(|response| response.uniform()).collect();
        let settings = GpuSampling {
            temperature: (sampling.temperature > 0.0).then_some(sampling.temperature),
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            repetition_penalty: sampling.penalties.repetition,
            presence_penalty: sampling.penalties.presence,
            vocabulary_size: sampling.vocabulary_size,
        };
        let mut changes = Vec::new();
        for (row, response) in responses.iter().enumerate() {
            for Change { token, is_repeated, is_present, is_forbidden } in response.changes(sampling) {
                changes.push(GpuChange { row, token, is_repeated, is_present, is_forbidden });
            }
        }
        let sampled = self.decoder.sample(&sequences, &uniforms, settings, &changes, &self.cache)?;
        for (response, sample) in responses.into_iter().zip(sampled) {
            if let Some((token, logit)) = sample.broken {
                return Err(response.broken(token, logit));
            }
            response.accept(SampledToken { token: sample.token, logprob: f64::from(sample.logprob) }, sampling)?;
        }
        Ok(())
    }
}
