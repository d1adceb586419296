//! What a node does with numbers that are none: NaN, and what is too large for a number.
//!
//! Knows the choice, not where such numbers come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens where a reward, a loss or a gradient is NaN or infinite, or a reward is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The node fails and says where.
    #[default]
    Stop,
    /// The response, or the optimizer step, is left out and counted.
    Skip,
}

impl NonFinite {
    /// Whether it is the default, which is not written out: so it is part of a fingerprint only where it can matter.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
