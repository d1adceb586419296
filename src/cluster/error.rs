//! The errors of a scheduler and of an executor as processes.

/// Why a scheduler or an executor ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The address cannot be used.
    #[error("{address}: {problem}")]
    Address {
        /// The address.
        address: String,
        /// The problem, and what to do.
        problem: String,
    },
    /// Ballista ended with an error.
    #[error("{0}")]
    Ended(String),
}
