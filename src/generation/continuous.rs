//! Continuous batching: sequences come and go one by one (Yu et al. 2022, "Orca"). Knows nothing of
//! text, weights or kernels.
//!
//! A step computes one position of every active response, and the prompts of responses about to
//! begin, as one list of positions without padding. A prompt is computed once for all of its
//! responses. A finished response is replaced by the next one in the next step: steps stay full
//! until the last responses run out.

use std::collections::VecDeque;

use super::response::ActiveResponse;
use super::{GenerationError, Observe, Sampling};
use crate::compute::Span;
use crate::token_lists::TokenLists;

/// A model with the memory of its sequences.
pub(super) trait SequenceDecoder {
    /// Prompt tokens of one step. Bounds the memory of a step.
    const PREFILL_TOKENS: usize;
    /// Whether a prefill of a few prompts takes as long as one of [`Self::PREFILL_TOKENS`] tokens:
    /// prompts of later responses are then added to it.
    const PREFILLS_AHEAD: bool;

    /// Begins a sequence of at most `positions` positions of its own, after those of `prefix`. The
    /// prefix no longer grows. `None` when there is no memory for it.
    fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize>;

    /// Ends a sequence. No sequence with this prefix is used afterwards.
    fn close(&mut self, sequence: usize);

    /// Computes prompts, and the last token of each response with a token. The spans' sequences
    /// hold them afterwards.
    fn forward(&mut self, prompts: &[Span<'_>], responses: &[Span<'_>]) -> Result<(), GenerationError>;

    /// Samples each response's next token, behind the tokens of its sequence. Responses without a
    /// token have the sequence of their prompt; those of one prompt stand together.
    fn sample(&mut self, responses: Vec<(usize, &mut ActiveResponse)>, sampling: &Sampling) -> Result<(), GenerationError>;
}

/// A response and its sequence.
struct Lane<'a> {
    response: &'a mut ActiveResponse,
    sequence: usize,
}

/// A prompt with active responses.
struct Prefill {
    sequence: usize,
    /// How many of its responses are not finished.
    unfinished: usize,
}

/// A prompt of the next step, and its sequence.
#[derive(Clone, Copy)]
struct ToPrefill {
    prompt: usize,
    sequence: usize,
}

/// Samples all `responses`, ordered by prompt. At most `lanes` are active at a time, and only as
/// many as fit into memory at their full length.
pub(super) fn run<D: SequenceDecoder>(
    decoder: D,
    prompts: &TokenLists,
    responses: &mut [ActiveResponse],
    sampling: &Sampling,
    lanes: usize,
    observe: Observe<'_>,
) -> Result<(), GenerationError> {
    let prompts: Vec<&[i32]> = prompts.iter().collect();
    let mut unfinished = vec![0; prompts.len()];
    responses.iter().for_each(|response| unfinished[response.prompt] += 1);
    let mut waiting: VecDeque<&mut ActiveResponse> = responses.iter_mut().collect();
    let prefills = prompts.iter().map(|_| None).collect();
    let mut batch = Batch { decoder, prompts, prefills, lanes: Vec::new() };
    let mut token_count = 0;
    loop {
        let mut to_prefill = Vec::new();
        while batch.lanes.len() < lanes.max(1) {
            let Some(next) = waiting.front() else { break };
            let Some(sequence) = batch.admit(next, &unfinished, &mut to_prefill) else { break };
            // There is one, it was looked at.
            batch.lanes.extend(waiting.pop_front().map(|response| Lane { response, sequence }));
        }
        if D::PREFILLS_AHEAD && !to_prefill.is_empty() {
            waiting.iter().try_for_each(|response| batch.open_prompt(response.prompt, &unfinished, &mut to_prefill).map(|_| ()));
        }
        if batch.lanes.is_empty() {
            return match waiting.front() {
                None => Ok(()),
                Some(response) => Err(GenerationError::Memory { row: response.prompt }),
            };
        }
        batch.step(&to_prefill, sampling)?;
        token_count += batch.lanes.len();
        if observe(token_count).is_break() {
            return Err(GenerationError::Interrupted);
        }
        batch.retire();
    }
}

struct Batch<'a, D> {
    decoder: D,
    prompts: Vec<&'a [i32]>,
    /// One entry a prompt.
    prefills: Vec<Option<Prefill>>,
    lanes: Vec<Lane<'a>>,
}

impl<D: SequenceDecoder> Batch<'_, D> {
    /// A sequence for a response, if there is room for one in this step; its prompt joins
    /// `to_prefill` if it is new.
    fn admit(&mut self, response: &ActiveResponse, unfinished: &[usize], to_prefill: &mut Vec<ToPrefill>) -> Option<usize> {
        let before = to_prefill.len();
        let prompt = self.open_prompt(response.prompt, unfinished, to_prefill)?;
        let sequence = self.decoder.open(Some(prompt), response.limit);
        if sequence.is_none() && to_prefill.len() > before {
            to_prefill.pop();
            self.decoder.close(prompt);
            self.prefills[response.prompt] = None;
        }
        sequence
    }

    /// The sequence of a prompt. A new prompt joins `to_prefill`. `None` if there is no room for it
    /// in this step.
    fn open_prompt(&mut self, prompt: usize, unfinished: &[usize], to_prefill: &mut Vec<ToPrefill>) -> Option<usize> {
        if let Some(Prefill { sequence, .. }) = self.prefills[prompt] {
            return Some(sequence);
        }
        let tokens: usize = to_prefill.iter().map(|new| self.prompts[new.prompt].len()).sum();
        if tokens >= D::PREFILL_TOKENS {
            return None;
        }
        let sequence = self.decoder.open(None, self.prompts[prompt].len())?;
        self.prefills[prompt] = Some(Prefill { sequence, unfinished: unfinished[prompt] });
        to_prefill.push(ToPrefill { prompt, sequence });
        Some(sequence)
    }

    /// Computes the prompts `to_prefill` and samples one token of every response.
    fn step(&mut self, to_prefill: &[ToPrefill], sampling: &Sampling) -> Result<(), GenerationError> {
        let Self { decoder, prompts, prefills, lanes } = self;
        let mut of_prompts = Vec::with_capacity(to_prefill.len());
        for &ToPrefill { prompt, sequence } in to_prefill {
            let mut tokens = prompts[prompt];
            while let Some((first, rest)) = tokens.split_at_checked(D::PREFILL_TOKENS).filter(|(_, rest)| !rest.is_empty()) {
                decoder.forward(&[Span { sequence, tokens: first }], &[])?;
                tokens = rest;
            }
            of_prompts.push(Span { sequence, tokens });
        }
        let of_responses = lanes.iter().filter_map(|lane| match &lane.response.tokens[..] {
            [.., last] => Some(Span { sequence: lane.sequence, tokens: std::slice::from_ref(last) }),
            [] => None,
        });
        decoder.forward(&of_prompts, &of_responses.collect::<Vec<_>>())?;
        let of_each = lanes.iter_mut().map(|lane| {
            // A response without a token follows its prompt. The prompt has been computed.
            let prompt = if lane.response.tokens.is_empty() { prefills[lane.response.prompt].as_ref() } else { None };
            (prompt.map_or(lane.sequence, |prefill| prefill.sequence), &mut *lane.response)
        });
        decoder.sample(of_each.collect(), sampling)
    }

    /// Frees the lanes of finished responses, and prompts without further responses.
    fn retire(&mut self) {
        let Self { decoder, prefills, lanes, .. } = self;
        lanes.retain(|lane| {
            if lane.response.finished.is_none() {
                return true;
            }
            decoder.close(lane.sequence);
            let prompt = lane.response.prompt;
            if let Some(prefill) = &mut prefills[prompt] {
                prefill.unfinished -= 1;
                if prefill.unfinished == 0 {
                    decoder.close(prefill.sequence);
                    prefills[prompt] = None;
                }
            }
            false
        });
    }
}
