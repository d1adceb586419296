//! The changes of logits by the tokens so far, before the temperature: penalties for tokens in
//! prompt and response, and no end before the least length. Knows nothing of random numbers.
//!
//! The order is that of Hugging Face transformers; it has no presence penalty, which is vLLM's and
//! stands behind the other penalty as there.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Penalties for tokens that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Penalties {
    /// Divides the positive logits of the tokens of prompt and response, and multiplies the
    /// negative ones; 1 changes nothing (Keskar et al. 2019, arXiv 1909.05858).
    pub repetition: f64,
    /// Is taken from the logits of the response's tokens; 0 changes nothing.
    pub presence: f64,
}

impl Penalties {
    /// No penalty.
    pub const NONE: Self = Self { repetition: 1.0, presence: 0.0 };
}

/// The change of one logit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) token: i32,
    /// Whether it is in prompt or response.
    pub(super) is_repeated: bool,
    /// Whether it is in the response.
    pub(super) is_present: bool,
    /// Whether it may not be drawn.
    pub(super) is_forbidden: bool,
}

/// The tokens of a response and its prompt, as far as the penalties need them.
#[derive(Debug)]
pub(super) struct Present {
    penalties: Penalties,
    repeated: HashSet<i32>,
    response: HashSet<i32>,
}

impl Present {
    /// Of a response without a token.
    pub(super) fn behind(prompt: &[i32], penalties: Penalties) -> Self {
        let repeated = if penalties.repetition == 1.0 { HashSet::new() } else { prompt.iter().copied().collect() };
        Self { penalties, repeated, response: HashSet::new() }
    }

    /// Takes the response's next token.
    pub(super) fn push(&mut self, token: i32) {
        if self.penalties.repetition != 1.0 {
            self.repeated.insert(token);
        }
        if self.penalties.presence != 0.0 {
            self.response.insert(token);
        }
    }

    /// The changes of the next token's logits, each token once. `forbidden` may not be drawn.
    pub(super) fn changes(&self, forbidden: &[i32]) -> Vec<Change> {
        let tokens: HashSet<i32> = self.repeated.iter().chain(&self.response).chain(forbidden).copied().collect();
        let change = |token: i32| Change {
            token,
            is_repeated: self.repeated.contains(&token),
            is_present: self.response.contains(&token),
            is_forbidden: forbidden.contains(&token),
        };
        tokens.into_iter().map(change).collect()
    }
}

/// Makes the changes. A logit that is not finite stays as it is, to be found later.
pub(super) fn apply(changes: &[Change], logits: &mut [f32], penalties: Penalties) {
    let (repetition, presence) = (penalties.repetition as f32, penalties.presence as f32);
    for change in changes {
        let logit = usize::try_from(change.token).ok().and_then(|token| logits.get_mut(token));
        let Some(logit) = logit.filter(|logit| logit.is_finite()) else { continue };
        if change.is_repeated {
            *logit = if *logit < 0.0 { *logit * repetition } else { *logit / repetition };
        }
        if change.is_present {
            *logit -= presence;
        }
        *logit = if change.is_forbidden { f32::MIN } else { logit.clamp(f32::MIN, f32::MAX) };
    }
}
