//! A response while it is sampled. Knows nothing of models or of other responses.

use super::penalties::{self, Change, Present};
use super::{GenerationError, ResponseText, SampledToken, Sampler, Sampling};

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// With one of the end tokens, its last token; or with a stop string.
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

/// One response, active or finished.
pub(super) struct ActiveResponse {
    /// The row of its prompt.
    pub(super) prompt: usize,
    sampler: Sampler,
    /// Those sampled so far.
    pub(super) tokens: Vec<i32>,
    /// Of these tokens, nats.
    pub(super) logprob: f64,
    /// Of each of these tokens, nats.
    pub(super) token_logprobs: Vec<f32>,
    /// The most tokens it may have.
    pub(super) limit: usize,
    /// `None` while it grows.
    pub(super) finished: Option<FinishReason>,
    present: Present,
    /// `None` without stop strings.
    text: Option<ResponseText>,
    /// The end of its text that is no part of the response: the stop string that ended it.
    pub(super) cut: String,
}

impl ActiveResponse {
    /// A response to the prompt in row `prompt`, of at most `limit` tokens, nothing of it sampled
    /// yet.
    pub(super) fn new(prompt: usize, seed: [u8; 32], limit: usize, present: Present, text: Option<ResponseText>) -> Self {
        let sampler = Sampler::new(seed);
        Self {
            prompt,
            sampler,
            tokens: Vec::new(),
            logprob: 0.0,
            token_logprobs: Vec::new(),
            limit,
            finished: None,
            present,
            text,
            cut: String::new(),
        }
    }

    /// The changes of its next token's logits.
    pub(super) fn changes(&self, sampling: &Sampling) -> Vec<Change> {
        let is_short = self.tokens.len() < sampling.min_new_tokens;
        self.present.changes(if is_short { &sampling.eos } else { &[] })
    }

    /// Samples the next token; nothing of the logits is left then.
    pub(super) fn sample(&mut self, logits: &mut [f32], sampling: &Sampling) -> Result<(), GenerationError> {
        penalties::apply(&self.changes(sampling), logits, sampling.penalties);
        let token = self.sampler.sample(logits, sampling).map_err(|(token, logit)| self.broken(token, logit))?;
        self.accept(token, sampling)
    }

    /// The random number of its next token, for a sampler elsewhere: in [0, 1).
    #[cfg(feature = "gpu")]
    pub(super) fn uniform(&mut self) -> f32 {
        // The nearest f32 may be 1.
        (self.sampler.uniform() as f32).min(1.0_f32.next_down())
    }

    /// Takes its next token.
    pub(super) fn accept(&mut self, token: SampledToken, sampling: &Sampling) -> Result<(), GenerationError> {
        self.tokens.push(token.token);
        self.logprob += token.logprob;
        self.token_logprobs.push(token.logprob as f32);
        self.present.push(token.token);
        if sampling.eos.contains(&token.token) {
            self.finished = Some(FinishReason::Stop);
            return Ok(());
        }
        let cut = self.text.as_mut().map(|text| text.push(token.token)).transpose()?.flatten();
        if let Some(cut) = cut {
            self.cut = cut;
            self.finished = Some(FinishReason::Stop);
        } else if self.tokens.len() >= self.limit {
            self.finished = Some(FinishReason::Length);
        }
        Ok(())
    }

    /// The error of logits that are not finite: `token` is the first with such a logit.
    pub(super) fn broken(&self, token: usize, logit: f32) -> GenerationError {
        GenerationError::Logits { row: self.prompt, step: self.tokens.len(), token, logit }
    }
}
