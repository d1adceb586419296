//! A run: from a checked pipeline to finished outputs in a run folder.
//!
//! ```text
//! graph ─▶ fetch ─▶ recipes ─▶ plan ─▶ execute
//! ```
//!
//! Brings together what must not know each other: the pipeline, the store, the scheduler and the stages. Knows no terminal.

mod execute;
mod fetch;
mod plan;
mod recipes;

pub use execute::{Failure, Report, execute};
pub use fetch::{Fetched, fetch};
pub use plan::{Outside, describe, outside, plan, runs};
pub use recipes::{Hashed, Prepared, prepare};

use crate::operators::OperatorError;
use crate::store::StoreError;
use crate::tracking::TrackingError;

/// An error of a run as a whole; errors of single nodes are in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The user's inputs are not what the pipeline needs.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The run folder or an input could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What shows the run cannot be told.
    #[error(transparent)]
    Tracking(#[from] TrackingError),
    /// The resolved pipeline could not be written down.
    #[error("pipeline.yaml: {0}")]
    Pipeline(String),
}
