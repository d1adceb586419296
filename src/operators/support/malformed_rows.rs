//! Examples that a model cannot read: an error, or left out and counted.
//!
//! Knows neither tokenizers nor losses.

use super::{Context, OperatorError};
use crate::import::LeftOut;
use crate::pipeline::spec::malformed::Malformed;

/// The reaction to the malformed examples of one table.
pub struct MalformedRows {
    malformed: Malformed,
    left_out: LeftOut,
}

impl MalformedRows {
    /// No malformed example yet.
    pub fn new(malformed: Malformed) -> Self {
        Self { malformed, left_out: LeftOut::default() }
    }

    /// Takes note of a malformed example; `place` names it.
    ///
    /// # Errors
    /// The problem and its place, under `malformed: stop`.
    pub fn add(&mut self, problem: &str, place: impl Fn() -> String) -> Result<(), OperatorError> {
        match self.malformed {
            Malformed::Stop => {
                let hint = "with `malformed: skip` the node leaves such rows out and counts them";
                Err(OperatorError::Input(format!("{}: {problem}; {hint}", place())))
            }
            Malformed::Skip => {
                self.left_out.add(problem, place);
                Ok(())
            }
        }
    }

    /// The number of left-out examples.
    pub fn count(&self) -> usize {
        self.left_out.count()
    }

    /// Number and reasons of the examples left out of `total`; `None` without any.
    pub fn text(&self, total: usize) -> Option<String> {
        self.left_out.text(total)
    }

    /// Tells the number and reasons, if there are any.
    pub fn warn(&self, context: &Context, total: usize) {
        if let Some(text) = self.text(total) {
            context.progress.warned(&context.task.label(), &text);
        }
    }
}
