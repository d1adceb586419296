//! What can go wrong in training: numbers that are none, inputs that do not belong together, a state that cannot be kept or restored.

use std::path::{Path, PathBuf};

use crate::model::ModelError;

/// An error of this module. The policy and the optimizer are as they were before the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The loss or the gradient norm is NaN or infinite.
    #[error("step {step}: {quantity} is {value}, expected a finite number; a lower learning rate or a gradient limit may help")]
    Diverged {
        /// The step, counted from 0.
        step: u64,
        /// Which number.
        quantity: &'static str,
        /// Its value.
        value: f64,
    },
    /// Rows, counts or settings do not belong together.
    #[error("{0}")]
    Input(String),
    /// The token sequences are not what the model expects.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A saved state cannot be written or read.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
}

impl TrainingError {
    pub(super) fn state(path: &Path, problem: impl ToString) -> Self {
        Self::State { path: path.to_path_buf(), problem: problem.to_string() }
    }
}
