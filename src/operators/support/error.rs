//! What can go wrong in a stage.

use crate::generation::GenerationError;
use crate::import::ImportError;
use crate::model::ModelError;
use crate::remote::RemoteError;
use crate::store::StoreError;
use crate::tables::TableError;
use crate::training::TrainingError;

/// An error of a stage; its text says what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The user's data, SQL or model is not what the stage needs.
    #[error("{0}")]
    Input(String),
    /// The run was asked to stop; what is finished is committed.
    #[error("stopped; what is finished is committed")]
    Stopped,
    /// A table breaks its rules.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file could not be read or written, or a query failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model directory or a tokenizer is not what was expected.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Sampling failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// An optimizer step failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A server could not be asked, or what it answers cannot be used.
    #[error(transparent)]
    Remote(RemoteError),
    /// The stage did all it could, and it was not enough; what is finished is committed.
    #[error("{0}")]
    Failed(String),
    /// An error of one of several things, named first.
    #[error("{of}: {error}")]
    Of {
        /// What the error is about.
        of: String,
        /// The error.
        error: Box<OperatorError>,
    },
    /// Arrow refused an operation.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<ImportError> for OperatorError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Table(error) => Self::Table(error),
            ImportError::Store(error) => Self::Store(error),
            ImportError::Arrow(error) => Self::Arrow(error),
            error if error.is_input() => Self::Input(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<RemoteError> for OperatorError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Stopped => Self::Stopped,
            error => Self::Remote(error),
        }
    }
}

impl OperatorError {
    /// The error, said to be `of` something; a stop stays a stop.
    pub(in crate::operators) fn of(self, of: &str) -> Self {
        match self {
            Self::Stopped => Self::Stopped,
            error => Self::Of { of: of.to_string(), error: Box::new(error) },
        }
    }

    /// Whether the user's input is to blame, and not this program or the machine.
    pub fn is_input(&self) -> bool {
        match self {
            OperatorError::Input(_) | OperatorError::Model(_) => true,
            OperatorError::Store(error) => error.is_input(),
            OperatorError::Remote(error) => error.is_input(),
            OperatorError::Of { error, .. } => error.is_input(),
            OperatorError::Stopped | OperatorError::Table(_) | OperatorError::Generation(_) | OperatorError::Training(_) => false,
            OperatorError::Failed(_) | OperatorError::Arrow(_) => false,
        }
    }
}
