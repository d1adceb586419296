//! Errors of reports.

use crate::import::ImportError;
use crate::pipeline::PipelineError;
use crate::store::StoreError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A run cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run's `pipeline.yaml` is not one.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A table of prompts or preferences is not what it was when it was used.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Rows or settings are of another form than was expected.
    #[error("{what}: {problem}")]
    Form {
        /// Of what.
        what: String,
        /// What was found.
        problem: String,
    },
    /// The page cannot be made; none that a run can cause is known.
    #[error("the report's page: {0}")]
    Page(#[from] minijinja::Error),
}
