//! Errors of a report.

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
    /// A table of prompts or preferences changed since its use.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Rows or settings are of an unexpected form.
    #[error("{what}: {problem}")]
    Form {
        /// The place of the error.
        what: String,
        /// The value found there.
        problem: String,
    },
    /// The page cannot be made; no run is known to cause this.
    #[error("the report's page: {0}")]
    Page(#[from] minijinja::Error),
}
