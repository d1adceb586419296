//! Why a response has no reward.
//!
//! Knows the words, not what is done about it.

use std::fmt::{self, Display};

/// What every text about a reward that is not finite has in it, so that its rows can be counted.
const EXPECTED: &str = "expected a finite reward";

/// Why a source gives a response no reward.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// The reward, or a component of it, is NaN, infinite or null.
    NotFinite {
        /// What gave it.
        whose: String,
        /// What it is.
        found: String,
    },
    /// The response cannot be scored.
    Other(String),
}

impl Problem {
    /// The reward that `whose` gave is `found`.
    pub(super) fn not_finite(whose: &str, found: impl Display) -> Self {
        Self::NotFinite { whose: whose.to_string(), found: found.to_string() }
    }

    /// The problem, said to be `of` something.
    pub(super) fn of(self, of: &str) -> Self {
        match self {
            Self::NotFinite { whose, found } => Self::NotFinite { whose: format!("{of}: {whose}"), found },
            Self::Other(problem) => Self::Other(format!("{of}: {problem}")),
        }
    }

    /// The error of a node that such a reward stops; `place` is the response. Nothing where the problem stops none.
    pub(super) fn stop(&self, place: &str) -> Option<String> {
        let Self::NotFinite { whose, found } = self else { return None };
        Some(format!("{whose}: {EXPECTED} for {place}, found {found}; with `non_finite: skip` such responses are left out and counted"))
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { whose, found } => write!(f, "{whose}: {EXPECTED}, found {found}"),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

/// Whether the error of a row of rewards says that the reward is not finite.
pub(super) fn is_not_finite(error: &str) -> bool {
    error.contains(EXPECTED)
}
