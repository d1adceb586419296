//! Decoding where sequences come and go one by one, on any device that can hold them so. Knows nothing of text, weights or kernels.
//!
//! A step computes one position of every response that grows, and reads the prompts of those that are about to: as one list of positions, without
//! padding. A prompt is read once for all of its responses. When a response is finished, the next one takes its place in the next step, so that steps
//! stay full until the last responses run out (continuous batching; Yu et al. 2022, "Orca").

use std::collections::VecDeque;

use super::generator::Response;
use super::{GenerationError, Observe, Sampling};
use crate::model::Span;

/// A model with the memory of its sequences.
pub(super) trait Decoder {
    /// Prompt tokens that are read in one step, so that the memory of a step is bounded.
    const READ_AT_ONCE: usize;
    /// Whether reading a few prompts takes as long as reading [`Self::READ_AT_ONCE`] tokens: those of later responses are then read with them.
    const READS_AHEAD: bool;

    /// Begins a sequence of at most so many positions of its own, after those of `prefix`, which grows no more; `None` when there is no memory for it.
    fn open(&mut self, prefix: Option<usize>, positions: usize) -> Option<usize>;

    /// Ends a sequence; none that has it as its prefix is used any more.
    fn close(&mut self, sequence: usize);

    /// Reads prompts, and the last token of each response that has one; the spans' sequences hold them afterwards.
    fn read(&mut self, prompts: &[Span<'_>], responses: &[Span<'_>]) -> Result<(), GenerationError>;

    /// Draws each response's next token, which comes after all that its sequence holds. Responses to one prompt that begin have that prompt's sequence, and
    /// stand together.
    fn draw(&mut self, responses: Vec<(usize, &mut Response)>, sampling: &Sampling) -> Result<(), GenerationError>;
}

/// A response that grows.
struct Growing<'a> {
    response: &'a mut Response,
    sequence: usize,
}

/// A prompt that is being answered.
struct Read {
    sequence: usize,
    /// How many of its responses are not finished.
    unfinished: usize,
}

/// Samples all `responses`, which are in the order of their prompts, at most `places` at a time, and as many as there is memory for when all are at their
/// longest.
pub(super) fn run<D: Decoder>(
    decoder: D,
    prompts: &[&[i32]],
    responses: &mut [Response],
    sampling: &Sampling,
    places: usize,
    observe: Observe<'_>,
) -> Result<(), GenerationError> {
    let mut unfinished = vec![0; prompts.len()];
    responses.iter().for_each(|response| unfinished[response.prompt] += 1);
    let mut waiting: VecDeque<&mut Response> = responses.iter_mut().collect();
    let mut batch = Batch { decoder, prompts, reads: prompts.iter().map(|_| None).collect(), growing: Vec::new() };
    let mut token_count = 0;
    loop {
        let mut read = Vec::new();
        while batch.growing.len() < places.max(1) {
            let Some(next) = waiting.front() else { break };
            let Some(sequence) = batch.admit(next, &unfinished, &mut read) else { break };
            // There is one, it was looked at.
            batch.growing.extend(waiting.pop_front().map(|response| Growing { response, sequence }));
        }
        if D::READS_AHEAD && !read.is_empty() {
            waiting.iter().try_for_each(|response| batch.open_prompt(response.prompt, &unfinished, &mut read).map(|_| ()));
        }
        if batch.growing.is_empty() {
            return match waiting.front() {
                None => Ok(()),
                Some(response) => Err(GenerationError::Memory { row: response.prompt }),
            };
        }
        batch.step(&read, sampling)?;
        token_count += batch.growing.len();
        if observe(token_count).is_break() {
            return Err(GenerationError::Interrupted);
        }
        batch.retire();
    }
}

struct Batch<'a, D> {
    decoder: D,
    prompts: &'a [&'a [i32]],
    /// One entry a prompt.
    reads: Vec<Option<Read>>,
    growing: Vec<Growing<'a>>,
}

impl<D: Decoder> Batch<'_, D> {
    /// A sequence for a response, if there is room for one in this step; its prompt is put to those that are to be `read` if it is new.
    fn admit(&mut self, response: &Response, unfinished: &[usize], read: &mut Vec<usize>) -> Option<usize> {
        let to_be_read = read.len();
        let prompt = self.open_prompt(response.prompt, unfinished, read)?;
        let sequence = self.decoder.open(Some(prompt), response.limit);
        if sequence.is_none() && read.len() > to_be_read {
            read.pop();
            self.decoder.close(prompt);
            self.reads[response.prompt] = None;
        }
        sequence
    }

    /// The sequence of a prompt, which is put to those that are to be `read` if it is new; `None` if there is no room for it in this step.
    fn open_prompt(&mut self, prompt: usize, unfinished: &[usize], read: &mut Vec<usize>) -> Option<usize> {
        if let Some(Read { sequence, .. }) = self.reads[prompt] {
            return Some(sequence);
        }
        let tokens: usize = read.iter().map(|&prompt| self.prompts[prompt].len()).sum();
        if tokens >= D::READ_AT_ONCE {
            return None;
        }
        let sequence = self.decoder.open(None, self.prompts[prompt].len())?;
        self.reads[prompt] = Some(Read { sequence, unfinished: unfinished[prompt] });
        read.push(prompt);
        Some(sequence)
    }

    /// Reads the prompts `read` and draws one token of every response.
    fn step(&mut self, read: &[usize], sampling: &Sampling) -> Result<(), GenerationError> {
        let Self { decoder, prompts, reads, growing } = self;
        let mut of_prompts = Vec::with_capacity(read.len());
        for &prompt in read {
            let Some(Read { sequence, .. }) = reads[prompt] else { continue };
            let mut tokens = prompts[prompt];
            while let Some((first, rest)) = tokens.split_at_checked(D::READ_AT_ONCE).filter(|(_, rest)| !rest.is_empty()) {
                decoder.read(&[Span { sequence, tokens: first }], &[])?;
                tokens = rest;
            }
            of_prompts.push(Span { sequence, tokens });
        }
        let of_responses = growing.iter().filter_map(|growing| match &growing.response.tokens[..] {
            [.., last] => Some(Span { sequence: growing.sequence, tokens: std::slice::from_ref(last) }),
            [] => None,
        });
        decoder.read(&of_prompts, &of_responses.collect::<Vec<_>>())?;
        let of_each = growing.iter_mut().map(|growing| {
            // What begins follows its prompt, which has been read.
            let begins = growing.response.tokens.is_empty();
            let prompt = reads[growing.response.prompt].as_ref().filter(|_| begins);
            (prompt.map_or(growing.sequence, |read| read.sequence), &mut *growing.response)
        });
        decoder.draw(of_each.collect(), sampling)
    }

    /// Frees the places of finished responses, and prompts whose last one that was.
    fn retire(&mut self) {
        let Self { decoder, reads, growing, .. } = self;
        growing.retain(|growing| {
            if growing.response.finished.is_none() {
                return true;
            }
            decoder.close(growing.sequence);
            let prompt = growing.response.prompt;
            if let Some(read) = &mut reads[prompt] {
                read.unfinished -= 1;
                if read.unfinished == 0 {
                    decoder.close(read.sequence);
                    reads[prompt] = None;
                }
            }
            false
        });
    }
}
