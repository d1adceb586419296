//! The reaction to a row that cannot be used.
//!
//! Knows the choice, not the rules of rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reaction to a row that cannot be used: a null response, a chosen response scored below the
/// rejected one, a text that the model's chat template or tokenizer refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// An error names the row.
    #[default]
    Stop,
    /// The row is left out and counted, with the reason. A table without a usable row is an error.
    Skip,
}

impl Malformed {
    /// Whether it is the default. The default is not written out, so fingerprints contain only
    /// `skip`.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
