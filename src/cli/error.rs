//! Errors of a command, each with its exit code.

use crate::import::ImportError;
use crate::model::ModelError;
use crate::operators::OperatorError;
use crate::pipeline::PipelineError;
use crate::run::RunError;
use crate::sql::postgres::ServeError;
use crate::store::StoreError;

/// Why a command ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The user's input is wrong: exit code 2.
    #[error("{0}")]
    Input(String),
    /// Something failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The run was interrupted: exit code 130.
    #[error("{0}")]
    Interrupted(String),
}

impl From<PipelineError> for CliError {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Invalid(_) => Self::Input(error.to_string()),
            PipelineError::Internal(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> Self {
        OperatorError::from(error).into()
    }
}

impl From<OperatorError> for CliError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Stopped => Self::Interrupted("interrupted; the same command goes on from there".to_string()),
            error if error.is_input() => Self::Input(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Read { .. } | ModelError::Write { .. } => Self::Failed(error.to_string()),
            _ => Self::Input(error.to_string()),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        if error.is_input() { Self::Input(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Address { .. } => Self::Input(error.to_string()),
            ServeError::Listen { .. } | ServeError::Start(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Operator(error) => error.into(),
            RunError::Store(error) => error.into(),
            // A server's address or token, or a build without clusters.
            RunError::Tracking(_) | RunError::Cluster(_) => Self::Input(error.to_string()),
            RunError::Pipeline(_) | RunError::Internal { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
