//! The error of a response without a reward.
//!
//! Knows the texts of errors, not how `score` reacts to them.

use std::fmt::{self, Display};

/// Part of every text about a reward that is not finite. The summary counts its rows by this text.
const EXPECTED: &str = "expected a finite reward";

/// The reason for a response to have no reward.
#[derive(Clone, Debug)]
pub(super) enum ScoreError {
    /// The reward, or a component of it, is NaN, infinite or null.
    NotFinite {
        /// The scorer of this reward, for people.
        scorer: String,
        /// The value.
        found: String,
    },
    /// The response cannot be scored.
    Other(String),
}

impl ScoreError {
    /// The error for the value `found` from `scorer`.
    pub(super) fn not_finite(scorer: &str, found: impl Display) -> Self {
        Self::NotFinite { scorer: scorer.to_string(), found: found.to_string() }
    }

    /// The same error with the name of a component of a sum in front.
    pub(super) fn in_component(self, name: &str) -> Self {
        match self {
            Self::NotFinite { scorer, found } => Self::NotFinite { scorer: format!("component {name}: {scorer}"), found },
            Self::Other(problem) => Self::Other(format!("component {name}: {problem}")),
        }
    }

    /// The error of the whole node under `non_finite: stop`; `response` names the response. `None`
    /// if this error does not stop a node.
    pub(super) fn stop_message(&self, response: &str) -> Option<String> {
        match self {
            Self::NotFinite { scorer, found } => Some(format!(
                "{scorer}: {EXPECTED} for {response}, found {found}; with `non_finite: skip` such responses are left out and counted"
            )),
            Self::Other(_) => None,
        }
    }
}

impl Display for ScoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { scorer, found } => write!(f, "{scorer}: {EXPECTED}, found {found}"),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

/// Whether the error text of a row of rewards is about a reward that is not finite.
pub(super) fn is_not_finite(error: &str) -> bool {
    error.contains(EXPECTED)
}
