//! Samples one token from logits: temperature, then top-k, top-p and min-p, as Hugging Face orders
//! them.
//! Knows nothing of models.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::GenerationError;
use super::penalties::Penalties;
use crate::compute::cpu::kernels;

/// How responses are sampled and when they end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Keeps the fewest likeliest tokens with this total probability; 1 keeps all (Holtzman et al.
    /// 2019, arXiv 1904.09751).
    pub top_p: f64,
    /// So many likeliest tokens are kept; 0 keeps all.
    pub top_k: usize,
    /// Drops tokens with less than this share of the likeliest token's probability; 0 drops none
    /// (Nguyen et al. 2024, arXiv 2407.01082).
    pub min_p: f64,
    /// Penalties for tokens that are there already.
    pub penalties: Penalties,
    /// No end token is drawn before the response has so many tokens.
    pub min_new_tokens: usize,
    /// The longest response, in tokens.
    pub max_new_tokens: usize,
    /// Any of these tokens ends a response, and is part of it.
    pub eos: Vec<i32>,
    /// Tokens with an id below it are drawn: the tokenizer's. A model may have more logits, to fill
    /// up a row of memory; nothing can decode those.
    pub vocabulary_size: usize,
    /// The longest prompt and response together: the model's `max_position_embeddings`.
    pub max_total_tokens: usize,
}

impl Sampling {
    /// # Errors
    /// A setting out of range, by name.
    pub(super) fn check(&self) -> Result<(), GenerationError> {
        let wrong = |setting, value: String, expected| Err(GenerationError::Setting { setting, value, expected });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong("temperature", self.temperature.to_string(), "a number from 0 on");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", self.top_p.to_string(), "a number above 0, at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", self.min_p.to_string(), "a number from 0 to 1");
        }
        if !(self.penalties.repetition.is_finite() && self.penalties.repetition > 0.0) {
            return wrong("repetition_penalty", self.penalties.repetition.to_string(), "a number above 0");
        }
        if !self.penalties.presence.is_finite() {
            return wrong("presence_penalty", self.penalties.presence.to_string(), "a finite number");
        }
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens", "0".to_string(), "at least 1");
        }
        if self.vocabulary_size == 0 {
            return wrong("vocabulary_size", "0".to_string(), "at least 1");
        }
        Ok(())
    }
}

/// A sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    /// Its id.
    pub token: i32,
    /// Its natural log probability under the distribution left after top-k, top-p and min-p; 0 at
    /// temperature 0.
    pub logprob: f64,
}

/// The random stream of one response. Each token takes one number of it: a token depends on the
/// seed, the step and the logits alone, not on other responses or on the batch.
#[derive(Debug)]
pub struct Sampler {
    generator: ChaCha8Rng,
}

/// A token's probability relative to the likeliest token's, and its id.
type Candidate = (f32, u32);

/// Likeliest first; of equals, the smaller id. A total order, since weights are finite.
fn likeliest_first(left: &Candidate, right: &Candidate) -> Ordering {
    right.0.total_cmp(&left.0).then(left.1.cmp(&right.1))
}

impl Sampler {
    /// The stream of `seed`: ChaCha with 8 rounds.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { generator: ChaCha8Rng::from_seed(seed) }
    }

    /// The number of the next token: in [0, 1), with all 53 bits of a f64.
    pub fn uniform(&mut self) -> f64 {
        (self.generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Samples the next token. The logits are used up: weights stand in their place afterwards.
    ///
    /// # Errors
    /// The first token with a logit that is not finite, and this logit. There must be at least one
    /// logit.
    pub fn sample(&mut self, logits: &mut [f32], sampling: &Sampling) -> Result<SampledToken, (usize, f32)> {
        let uniform = self.uniform();
        let vocabulary = logits.len().min(sampling.vocabulary_size);
        let logits = &mut logits[..vocabulary];
        let (best, largest) = kernels::largest(logits)?;
        let certain = SampledToken { token: best as i32, logprob: 0.0 };
        if sampling.temperature == 0.0 {
            return Ok(certain);
        }
        let inverse = (1.0 / sampling.temperature).min(f64::from(f32::MAX)) as f32;
        let sums = kernels::weigh(logits, largest, inverse);
        if (sampling.top_k == 0 || sampling.top_k >= vocabulary) && sampling.top_p >= 1.0 && sampling.min_p == 0.0 {
            return Ok(pick(logits, &sums, uniform).unwrap_or(certain));
        }
        let mut candidates: Vec<Candidate> = logits.iter().copied().zip(0..).collect();
        keep_top_k(&mut candidates, sampling.top_k);
        keep_top_p(&mut candidates, sampling.top_p);
        // Weights are relative to the likeliest token's.
        candidates.retain(|candidate| candidate.0 >= sampling.min_p as f32);
        Ok(pick_candidate(&candidates, uniform).unwrap_or(certain))
    }
}

/// Keeps the `top_k` likeliest candidates, in their order; all if it is 0.
fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k > 0 && top_k < candidates.len() {
        let least = *candidates.clone().select_nth_unstable_by(top_k - 1, likeliest_first).1;
        candidates.retain(|candidate| likeliest_first(candidate, &least).is_le());
    }
}

/// Keeps the fewest likeliest candidates with a total share of at least `top_p`, in their order;
/// all if it is 1.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f64) {
    if top_p >= 1.0 {
        return;
    }
    let total = mass(candidates);
    // All candidates below this share are together less than 1 - top_p: the others hold the
    // nucleus.
    let negligible = (1.0 - top_p) * total / candidates.len() as f64;
    candidates.retain(|candidate| f64::from(candidate.0) >= negligible);

    // Halves the stretch around the end of the nucleus. All before the stretch belongs to the
    // nucleus. The vocabulary is never sorted.
    let mut needed = top_p * total;
    let mut selected = candidates.clone();
    let mut stretch = &mut selected[..];
    while stretch.len() > 1 {
        let half = stretch.len() / 2;
        stretch.select_nth_unstable_by(half, likeliest_first);
        let (likelier, rest) = stretch.split_at_mut(half);
        let held = mass(likelier);
        if held >= needed {
            stretch = likelier;
        } else {
            needed -= held;
            stretch = rest;
        }
    }
    if let Some(least) = stretch.first() {
        candidates.retain(|candidate| likeliest_first(candidate, least).is_le());
    }
}

/// The sum of the weights, in four sums, since each addition would wait for the one before it.
fn mass(candidates: &[Candidate]) -> f64 {
    let (fours, rest) = candidates.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        for (sum, candidate) in sums.iter_mut().zip(four) {
            *sum += f64::from(candidate.0);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|candidate| f64::from(candidate.0)).sum::<f64>()
}

/// The token at `uniform` of the way through the weights of a vocabulary. `sums` are those of its
/// blocks. `None` when all are 0.
fn pick(weights: &[f32], sums: &[f64], uniform: f64) -> Option<SampledToken> {
    let total: f64 = sums.iter().sum();
    let mut target = uniform * total;
    let mut blocks = weights.chunks(kernels::WEIGHED_TOGETHER).zip(sums).enumerate().filter(|(_, (_, sum))| **sum > 0.0).peekable();
    while let Some((block, (weights, sum))) = blocks.next() {
        // Rounding may leave a rest behind the last block. It belongs to this block.
        if target < *sum || blocks.peek().is_none() {
            let first = block * kernels::WEIGHED_TOGETHER;
            return pick_weight(weights.iter().copied().zip(first as u32..), target, total);
        }
        target -= sum;
    }
    None
}

/// The candidate at `uniform` of the way through the weights; `None` when there is none.
fn pick_candidate(candidates: &[Candidate], uniform: f64) -> Option<SampledToken> {
    let total = mass(candidates);
    pick_weight(candidates.iter().copied(), uniform * total, total)
}

/// The candidate where the sum of the weights passes `target`, else the last; `None` when all are
/// 0.
fn pick_weight(candidates: impl Iterator<Item = Candidate>, target: f64, total: f64) -> Option<SampledToken> {
    let mut sum = 0.0;
    let mut picked = None;
    for (weight, token) in candidates.filter(|candidate| candidate.0 > 0.0) {
        sum += f64::from(weight);
        picked = Some((weight, token));
        if sum > target {
            break;
        }
    }
    picked.map(|(weight, token)| SampledToken { token: token as i32, logprob: (f64::from(weight) / total).ln() })
}
