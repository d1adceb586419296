//! Errors of training: numbers that are not finite, mismatched inputs, an unusable saved state.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::ModelError;

/// An error of this module. The policy and the optimizer are as they were before the step that
/// failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A number of the step is NaN or infinite.
    #[error("step {}: {unusable}, expected a finite number; a lower learning rate or a gradient limit may help", step + 1)]
    Diverged {
        /// The step, counted from 0; the text counts from 1.
        step: u64,
        /// The number.
        unusable: Unusable,
    },
    /// Rows, counts or settings do not belong together.
    #[error("{0}")]
    Input(String),
    /// The model does not take the token sequences.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A saved state cannot be written or read.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The expected and the found content.
        problem: String,
    },
}

/// A number of a step that is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unusable {
    /// Its name.
    pub quantity: &'static str,
    /// Its value.
    pub value: f64,
    /// The step's loss.
    pub loss: f64,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.quantity, self.value)?;
        if self.loss.is_finite() { write!(f, " (the loss is {:.4})", self.loss) } else { Ok(()) }
    }
}

impl TrainingError {
    pub(super) fn state(path: &Path, problem: impl ToString) -> Self {
        Self::State { path: path.to_path_buf(), problem: problem.to_string() }
    }
}
