//! A GPU as a decoder of sequences: tokens are drawn there too, so that nothing but them comes back. Knows nothing of prompts or text.

use super::continuous::Decoder;
use super::generator::Response;
use super::{Draw, GenerationError, Sampling};
use crate::model::{Drawing, GpuCache, GpuDecoder, Span};

/// Prompt tokens that are read in one step.
const READ_AT_ONCE: usize = 4096;

/// A model with its sequences in the GPU's memory.
pub(super) struct Gpu<'a> {
    decoder: &'a GpuDecoder,
    cache: GpuCache,
    longest_response: usize,
}

impl<'a> Gpu<'a> {
    /// With room for as many of the `responses` as `places`, and for prompts that are read ahead; for fewer at a time where that would take more than
    /// `cache_bytes`, but for one response at least. In an `earlier` cache if that is large enough.
    pub(super) fn new(
        decoder: &'a GpuDecoder,
        prompts: &[&[i32]],
        responses: &[Response],
        places: usize,
        cache_bytes: usize,
        earlier: Option<GpuCache>,
    ) -> Self {
        let longest_prompt = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let longest_response = responses.iter().map(|response| response.limit).max().unwrap_or(0);
        let places = places.clamp(1, responses.len().max(1));
        let wanted = places * (longest_prompt + longest_response) + READ_AT_ONCE + longest_prompt;
        // A prompt may lie anywhere: what is free on one side of it must hold a response.
        let least = longest_prompt + 2 * longest_response;
        let most = cache_bytes / decoder.cache_bytes_per_position().max(1);
        let (positions, sequences) = (wanted.min(most).max(least), places + prompts.len());
        let cache = earlier.filter(|cache| cache.holds(positions, sequences));
        let cache = cache.unwrap_or_else(|| decoder.new_cache(positions, sequences));
        Self { decoder, cache, longest_response }
    }

    /// The cache, for the next time; what was recorded stays with it.
    pub(super) fn into_cache(self) -> GpuCache {
        self.cache
    }
}

impl Decoder for &mut Gpu<'_> {
    const READ_AT_ONCE: usize = READ_AT_ONCE;
    const READS_AHEAD: bool = true;

    fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize> {
        let sequence = self.cache.open(prefix, positions)?;
        // However many prompts are read ahead: once no response grows any more, there is room for any.
        let fits = prefix.is_some() || self.cache.has_room(self.longest_response);
        if !fits {
            self.cache.close(sequence);
        }
        fits.then_some(sequence)
    }

    fn close(&mut self, sequence: usize) {
        self.cache.close(sequence);
    }

    fn read(&mut self, prompts: &[Span<'_>], responses: &[Span<'_>]) -> Result<(), GenerationError> {
        self.decoder.forward(prompts, &mut self.cache)?;
        // Apart, so that it is a pass that has been recorded.
        Ok(self.decoder.forward(responses, &mut self.cache)?)
    }

    fn draw(&mut self, responses: Vec<(usize, &mut Response)>, sampling: &Sampling) -> Result<(), GenerationError> {
        let (sequences, mut responses): (Vec<usize>, Vec<&mut Response>) = responses.into_iter().unzip();
        let uniforms: Vec<f32> = responses.iter_mut().map(|response| response.uniform()).collect();
        let drawing = Drawing {
            temperature: (sampling.temperature > 0.0).then_some(sampling.temperature),
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            vocabulary_size: sampling.vocabulary_size,
        };
        let drawn = self.decoder.draw(&sequences, &uniforms, drawing, &self.cache)?;
        for (response, drawn) in responses.into_iter().zip(drawn) {
            if let Some((token, logit)) = drawn.broken {
                return Err(response.broken(token, logit));
            }
            response.accept(Draw { token: drawn.token, logprob: f64::from(drawn.logprob) }, sampling);
        }
        Ok(())
    }
}
