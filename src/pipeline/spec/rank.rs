//! `rank`: the test of a reward model. Never written by a user: every `reward_model` adds one.
//!
//! Knows which preferences are tested, not how they are ranked.

use serde::Serialize;

use super::held_out::HeldOut;
use super::malformed::Malformed;

/// The test of a reward model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rank {
    /// The preferences to test on.
    pub held_out: HeldOut,
    /// The longest conversation, in tokens.
    pub max_tokens: u32,
    /// The reaction to preferences that the model's chat template or tokenizer refuses.
    #[serde(skip_serializing_if = "Malformed::is_default")]
    pub malformed: Malformed,
}
