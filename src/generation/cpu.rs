//! The CPU as an engine. The bits of a position do not depend on the positions computed beside it
//! (see [`kernels`](crate::compute::cpu::kernels)), nor on the batch size or the order of
//! finishing. Knows nothing of prompts or text.

use super::continuous::{self, SequenceDecoder};
use super::engine::{Engine, Limits};
use super::response::ActiveResponse;
use super::{GenerationError, Observe, Sampling};
use crate::compute::cpu::kernels;
use crate::compute::{CpuCache, CpuDecoder, Span};
use crate::token_lists::TokenLists;

/// The limit for keys and values of callers that name none.
const CACHE_BYTES: usize = 2 << 30;

/// A model on the CPU.
#[derive(Debug)]
pub(super) struct CpuEngine(CpuDecoder);

impl CpuEngine {
    pub(super) fn new(decoder: CpuDecoder) -> Self {
        Self(decoder)
    }
}

impl Engine for CpuEngine {
    fn cache_bytes(&self, room: Option<usize>) -> usize {
        // Taken as sequences grow.
        room.unwrap_or(CACHE_BYTES)
    }

    fn sample(
        &self,
        prompts: &TokenLists,
        responses: &mut [ActiveResponse],
        sampling: &Sampling,
        limits: Limits,
        observe: Observe<'_>,
    ) -> Result<(), GenerationError> {
        let sequences = CpuSequences::new(&self.0, limits.cache_bytes);
        kernels::awake(|| continuous::run(sequences, prompts, responses, sampling, limits.batch_size, observe))
    }
}

/// A model with its sequences in memory.
struct CpuSequences<'a> {
    decoder: &'a CpuDecoder,
    cache: CpuCache,
    /// How many positions the cache may hold.
    most_positions: usize,
    sequences: Vec<Sequence>,
    /// How many sequences have a prefix.
    responses: usize,
    /// The positions of the cache if every sequence in it grows to its limit.
    reserved: usize,
    /// Of one step; kept to reuse its memory.
    logits: Vec<f32>,
}

#[derive(Clone, Debug, Default)]
struct Sequence {
    is_response: bool,
    reserved: usize,
    /// Behind its last token, after the last norm.
    hidden: Vec<f32>,
}

impl<'a> CpuSequences<'a> {
    /// Keys and values take at most `cache_bytes`, or as much as a single response needs.
    fn new(decoder: &'a CpuDecoder, cache_bytes: usize) -> Self {
        let cache = decoder.new_cache();
        let most_positions = cache_bytes / cache.bytes_per_position().max(1);
        Self { decoder, cache, most_positions, sequences: Vec::new(), responses: 0, reserved: 0, logits: Vec::new() }
    }
}

impl SequenceDecoder for CpuSequences<'_> {
    const PREFILL_TOKENS: usize = 512;
    const PREFILLS_AHEAD: bool = false;

    fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize> {
        if self.responses > 0 && self.reserved + positions > self.most_positions {
            return None;
        }
        let number = self.cache.open(prefix, positions);
        self.sequences.resize(self.sequences.len().max(number + 1), Sequence::default());
        self.sequences[number] = Sequence { is_response: prefix.is_some(), reserved: positions, hidden: Vec::new() };
        self.responses += usize::from(prefix.is_some());
        self.reserved += positions;
        Some(number)
    }

    fn close(&mut self, sequence: usize) {
        self.cache.close(sequence);
        let Sequence { is_response, reserved, .. } = std::mem::take(&mut self.sequences[sequence]);
        self.responses -= usize::from(is_response);
        self.reserved -= reserved;
    }

    fn forward(&mut self, prompts: &[Span<'_>], responses: &[Span<'_>]) -> Result<(), GenerationError> {
        let width = self.decoder.hidden_size();
        // One pass: weights are read from memory once.
        let spans = [prompts, responses].concat();
        let hidden = self.decoder.forward(&spans, &mut self.cache)?;
        let mut end = 0;
        for span in &spans {
            end += span.tokens.len() * width;
            let last = &mut self.sequences[span.sequence].hidden;
            last.clear();
            last.extend_from_slice(&hidden[end - width..end]);
        }
        Ok(())
    }

    fn sample(&mut self, responses: Vec<(usize, &mut ActiveResponse)>, sampling: &Sampling) -> Result<(), GenerationError> {
        // Responses without a token share the logits of their prompt.
        let mut rows = Vec::new();
        let mut last = None;
        let mut uses = Vec::new();
        for (sequence, _) in &responses {
            if last != Some(*sequence) {
                rows.extend_from_slice(&self.sequences[*sequence].hidden);
                uses.push(0);
                last = Some(*sequence);
            }
            uses.last_mut().into_iter().for_each(|uses| *uses += 1);
        }
        self.decoder.head(&rows, &mut self.logits);
        // Sampling uses up the logits: shared logits are copied for all responses but the last.
        let mut work = Vec::with_capacity(responses.len());
        let mut responses = responses.into_iter().map(|(_, response)| response);
        for (logits, uses) in self.logits.chunks_exact_mut(self.decoder.outputs().max(1)).zip(uses) {
            for response in responses.by_ref().take(uses - 1) {
                work.push((response, Logits::Copied(logits.to_vec())));
            }
            work.extend(responses.next().map(|response| (response, Logits::Lent(logits))));
        }
        let outcomes = kernels::map(work, |(response, mut logits)| response.sample(logits.as_mut(), sampling));
        outcomes.into_iter().collect()
    }
}

enum Logits<'a> {
    Lent(&'a mut [f32]),
    Copied(Vec<f32>),
}

impl Logits<'_> {
    fn as_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Lent(logits) => logits,
            Self::Copied(logits) => logits,
        }
    }
}
