//! `reference`: the pairs of a `train` node with reference logprobs. Never written by a user: every
//! `train` adds one.
//!
//! Knows which pairs are usable, not how logprobs are computed.

use serde::Serialize;

use super::malformed::Malformed;

/// The reference logprobs of pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reference {
    /// The reaction to preferences that the model's chat template or tokenizer refuses.
    #[serde(skip_serializing_if = "Malformed::is_default")]
    pub malformed: Malformed,
}
