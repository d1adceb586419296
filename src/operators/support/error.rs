//! The errors of operators.

use crate::generation::GenerationError;
use crate::import::ImportError;
use crate::model::ModelError;
use crate::remote::RemoteError;
use crate::store::StoreError;
use crate::tables::TableError;
use crate::token_lists::TokenListsError;
use crate::training::TrainingError;

/// An error of an operator. Its text says what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The user's data, SQL or model does not fit the operator.
    #[error("{0}")]
    Input(String),
    /// The run was asked to stop; all finished parts are committed.
    #[error("stopped; what is finished is committed")]
    Stopped,
    /// A table breaks its rules.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file could not be read or written, or a query failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model directory or a tokenizer is not as expected.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Sampling failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// An optimizer step failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A server could not be asked, or its answer is unusable.
    #[error(transparent)]
    Remote(RemoteError),
    /// The operator did all it could, and it was not enough; all finished parts are committed.
    #[error("{0}")]
    Failed(String),
    /// An impossible state. The text names the place.
    #[error("internal error in {place}: {problem}; this is a bug in optune, please report it")]
    Internal {
        /// The module.
        place: &'static str,
        /// The state found.
        problem: String,
    },
    /// An error of one of several things, named first.
    #[error("{of}: {error}")]
    Of {
        /// The subject of the error.
        of: String,
        /// The error.
        error: Box<OperatorError>,
    },
    /// Arrow refused an operation.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<TokenListsError> for OperatorError {
    fn from(error: TokenListsError) -> Self {
        Self::Model(error.into())
    }
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
    /// An impossible state in `place`, a module of this crate.
    pub(in crate::operators) fn internal(place: &'static str, problem: impl Into<String>) -> Self {
        Self::Internal { place, problem: problem.into() }
    }

    /// The same error with its subject in front; a stop stays a stop.
    pub(in crate::operators) fn of(self, of: &str) -> Self {
        match self {
            Self::Stopped => Self::Stopped,
            error => Self::Of { of: of.to_string(), error: Box::new(error) },
        }
    }

    /// Whether the user's input is to blame, and not this program or the machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Input(_) | Self::Model(_) => true,
            Self::Store(error) => error.is_input(),
            Self::Remote(error) => error.is_input(),
            Self::Of { error, .. } => error.is_input(),
            Self::Stopped | Self::Table(_) | Self::Generation(_) | Self::Training(_) => false,
            Self::Failed(_) | Self::Internal { .. } | Self::Arrow(_) => false,
        }
    }
}
