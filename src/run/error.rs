//! Errors of a run as a whole.

use crate::operators::OperatorError;
use crate::store::StoreError;
use crate::tracking::TrackingError;

/// An error of a run as a whole. Errors of single nodes are in the report of the execution.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The user's inputs do not fit the pipeline.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The run folder or an input could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tracker could not be started.
    #[error(transparent)]
    Tracking(#[from] TrackingError),
    /// The resolved pipeline could not be written.
    #[error("pipeline.yaml: {0}")]
    Pipeline(String),
    /// The cluster cannot be used.
    #[error("cluster: {0}")]
    Cluster(String),
    /// An impossible state: an error in this program.
    #[error("internal error in {place}: {problem}; this is a bug in optune, please report it")]
    Internal {
        /// The function or module.
        place: &'static str,
        /// The state.
        problem: String,
    },
}
