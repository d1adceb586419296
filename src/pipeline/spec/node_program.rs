//! The program of the user's that does the work of a node.
//!
//! Knows which operators can have one, not how it runs.

use super::command::Program;
use super::operator::Operator;

impl Operator {
    /// Its program, if it has one.
    pub fn program(&self) -> Option<Program<'_>> {
        match self {
            Self::Command(command) => Some(command.program()),
            Self::Train(train) => train.engine.as_ref().map(|engine| engine.program()),
            _ => None,
        }
    }
}
