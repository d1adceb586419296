//! The reaction of a node to NaN and infinite numbers.
//!
//! Knows the choice, not the source of such numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reaction to a reward, loss or gradient that is NaN or infinite, or to a null reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The node fails and names the row or step.
    #[default]
    Stop,
    /// The response, or the optimizer step, is left out and counted.
    Skip,
}

impl NonFinite {
    /// Whether it is the default. The default is not written out, so fingerprints contain only
    /// `skip`.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
