//! The report on one damaged file. Knows nothing of how damage is found or moved.

use std::fmt;
use std::path::PathBuf;

/// A file with wrong contents, or a missing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its expected path.
    pub path: PathBuf,
    /// Its path in `quarantine/`; `None` if it is missing, or if the check changes nothing.
    pub moved_to: Option<PathBuf>,
    /// The expected contents, usually from the manifest.
    pub expected: String,
    /// The actual contents.
    pub found: String,
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.path.display(), self.expected, self.found)?;
        self.moved_to.as_ref().map_or(Ok(()), |path| write!(f, "; moved to {}", path.display()))
    }
}
