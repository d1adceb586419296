//! Decoding on the processor, where sequences come and go one by one. Knows nothing of text.
//!
//! A step computes one position of every response that grows, and reads the prompts of those that are about to: as one list of positions, without
//! padding. A prompt is read once for all of its responses. When a response is finished, the next one takes its place in the next step, so that steps
//! stay full until the last responses run out (continuous batching; Yu et al. 2022, "Orca"). What is computed beside a position does not change its
//! bits (see [`kernels`](crate::kernels)), so neither do the number of places, or who is finished when.

use super::generator::Response;
use super::{GenerationError, Observe, Sampling};
use crate::kernels;
use crate::model::{CpuCache, CpuDecoder, Span};

/// Prompt tokens that are read in one step, so that the memory of a step is bounded.
const READ_AT_ONCE: usize = 512;

/// A response that grows.
struct Growing<'a> {
    response: &'a mut Response,
    sequence: usize,
}

/// A prompt that is being answered.
struct Read {
    sequence: usize,
    /// Behind its last token, after the last norm; what every response's first token is drawn from.
    hidden: Vec<f32>,
    /// How many of its responses are not finished.
    unfinished: usize,
}

/// Samples all `responses`, which are in the order of their prompts, at most `places` at a time, and as many as have keys and values of `cache_bytes` when all
/// are at their longest; a single response may take more.
pub(super) fn run(
    decoder: &CpuDecoder,
    prompts: &[&[i32]],
    responses: &mut [Response],
    sampling: &Sampling,
    places: usize,
    cache_bytes: usize,
    observe: Observe<'_>,
) -> Result<(), GenerationError> {
    let mut batch = Batch {
        decoder,
        prompts,
        cache: decoder.new_cache(),
        reads: prompts.iter().map(|_| None).collect(),
        growing: Vec::new(),
        reserved_positions: 0,
        logits: Vec::new(),
    };
    let most_positions = cache_bytes / batch.cache.bytes_per_position().max(1);
    let mut unfinished = vec![0; prompts.len()];
    responses.iter().for_each(|response| unfinished[response.prompt] += 1);
    let mut waiting = responses.iter_mut().peekable();
    let mut token_count = 0;
    loop {
        let mut read = Vec::new();
        let mut read_tokens = 0;
        while batch.growing.len() < places.max(1) {
            let Some(next) = waiting.peek() else { break };
            let prompt = next.prompt;
            let is_new = batch.reads[prompt].is_none();
            let positions = next.limit + if is_new { prompts[prompt].len() } else { 0 };
            let is_first = batch.growing.is_empty();
            let is_too_much = batch.reserved_positions + positions > most_positions || (is_new && read_tokens >= READ_AT_ONCE);
            if is_too_much && !is_first {
                break;
            }
            if is_new {
                let sequence = batch.cache.open(None);
                batch.reads[prompt] = Some(Read { sequence, hidden: Vec::new(), unfinished: unfinished[prompt] });
                read.push(prompt);
                read_tokens += prompts[prompt].len();
            }
            // There is one, it was looked at.
            if let Some(response) = waiting.next() {
                batch.admit(response, positions);
            }
        }
        if batch.growing.is_empty() {
            return Ok(());
        }
        batch.step(&read, sampling)?;
        token_count += batch.growing.len();
        if observe(token_count).is_break() {
            return Err(GenerationError::Interrupted);
        }
        batch.retire();
    }
}

struct Batch<'a> {
    decoder: &'a CpuDecoder,
    prompts: &'a [&'a [i32]],
    cache: CpuCache,
    /// One entry a prompt.
    reads: Vec<Option<Read>>,
    growing: Vec<Growing<'a>>,
    /// What the cache will hold if every response in it grows to its limit.
    reserved_positions: usize,
    /// Of one step; kept so that its memory is used again.
    logits: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// Gives a response a place; its prompt has a sequence.
    fn admit(&mut self, response: &'a mut Response, positions: usize) {
        let prefix = self.reads[response.prompt].as_ref().map(|read| read.sequence);
        let sequence = self.cache.open(prefix);
        self.reserved_positions += positions;
        self.growing.push(Growing { response, sequence });
    }

    /// Reads the prompts `read` and draws one token of every response.
    fn step(&mut self, read: &[usize], sampling: &Sampling) -> Result<(), GenerationError> {
        let hidden = self.hidden(read)?;
        let (mut rows, width) = (Vec::new(), self.decoder.hidden_size());
        // The responses that begin now share the logits of their prompt.
        let mut of_prompt: Vec<(usize, usize)> = Vec::new();
        let mut grown = hidden.chunks_exact(width.max(1));
        let mut sources = Vec::with_capacity(self.growing.len());
        for growing in &self.growing {
            let prompt = growing.response.prompt;
            let shared = of_prompt.last().filter(|(last, _)| *last == prompt).map(|(_, row)| *row);
            let row = rows.len() / width.max(1);
            if !growing.response.tokens.is_empty() {
                // `hidden` has a row for each of these, in their order.
                rows.extend_from_slice(grown.next().unwrap_or_default());
                sources.push(row);
            } else if let Some(row) = shared {
                sources.push(row);
            } else {
                rows.extend_from_slice(self.reads[prompt].as_ref().map_or(&[], |read| &read.hidden));
                of_prompt.push((prompt, row));
                sources.push(row);
            }
        }
        self.decoder.head(&rows, &mut self.logits);
        let outputs = self.decoder.outputs().max(1);
        // Drawing uses up the logits: those that are shared are copied for all but the last.
        let mut rows: Vec<Option<&mut [f32]>> = self.logits.chunks_exact_mut(outputs).map(Some).collect();
        let mut copies: Vec<Vec<f32>> = Vec::new();
        let mut last_use = vec![0; rows.len()];
        sources.iter().enumerate().for_each(|(at, row)| last_use[*row] = at);
        for (at, row) in sources.iter().enumerate() {
            if last_use[*row] != at {
                copies.push(rows[*row].as_deref().unwrap_or_default().to_vec());
            }
        }
        let mut copies = copies.iter_mut();
        let of_each = sources.iter().enumerate().map(|(at, row)| match last_use[*row] == at {
            true => rows[*row].take().unwrap_or_default(),
            false => copies.next().map(Vec::as_mut_slice).unwrap_or_default(),
        });
        let of_each: Vec<&mut [f32]> = of_each.collect();
        let draws = kernels::map(self.growing.iter_mut().zip(of_each), |(growing, logits)| growing.response.draw(logits, sampling));
        draws.into_iter().collect()
    }

    /// Reads `prompts`, whose hidden states are kept with them, and the last token of every response that has one: one row each.
    fn hidden(&mut self, prompts: &[usize]) -> Result<Vec<f32>, GenerationError> {
        let (decoder, width) = (self.decoder, self.decoder.hidden_size());
        let mut spans = Vec::with_capacity(prompts.len() + self.growing.len());
        for &prompt in prompts {
            let Some(Read { sequence, .. }) = self.reads[prompt] else { continue };
            let mut tokens = self.prompts[prompt];
            while let Some((first, rest)) = tokens.split_at_checked(READ_AT_ONCE).filter(|(_, rest)| !rest.is_empty()) {
                decoder.forward(&[Span { sequence, tokens: first }], &mut self.cache)?;
                tokens = rest;
            }
            spans.push(Span { sequence, tokens });
        }
        for growing in &self.growing {
            if let [.., last] = &growing.response.tokens[..] {
                spans.push(Span { sequence: growing.sequence, tokens: std::slice::from_ref(last) });
            }
        }
        let mut hidden = decoder.forward(&spans, &mut self.cache)?;
        let mut end = 0;
        for (prompt, span) in prompts.iter().zip(&spans) {
            end += span.tokens.len() * width;
            if let Some(read) = &mut self.reads[*prompt] {
                read.hidden = hidden[end - width..end].to_vec();
            }
        }
        Ok(hidden.split_off(end))
    }

    /// Frees the places of finished responses, and prompts whose last one that was.
    fn retire(&mut self) {
        let Self { cache, reads, growing, reserved_positions, prompts, .. } = self;
        growing.retain(|growing| {
            if growing.response.finished.is_none() {
                return true;
            }
            cache.close(growing.sequence);
            *reserved_positions -= growing.response.limit;
            let prompt = growing.response.prompt;
            if let Some(read) = &mut reads[prompt] {
                read.unfinished -= 1;
                if read.unfinished == 0 {
                    cache.close(read.sequence);
                    *reserved_positions -= prompts[prompt].len();
                    reads[prompt] = None;
                }
            }
            false
        });
    }
}
