//! Errors in a pipeline file, and their positions.
//!
//! Knows how to show a position; exit codes and colours belong to the command line.

use std::fmt;

use super::position::Span;

/// Why a pipeline file gives no graph.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PipelineError {
    /// The user's mistake.
    #[error("{0}")]
    Invalid(Mistake),
    /// A defect of this program, with the function and the broken assumption. No file is to blame.
    #[error("internal error in {0}; please report it")]
    Internal(String),
}

impl PipelineError {
    /// The position in the file; line 0 for an error without one.
    pub fn span(&self) -> Span {
        match self {
            Self::Invalid(mistake) => mistake.span,
            Self::Internal(_) => Span::default(),
        }
    }

    /// The message without file and position.
    pub fn message(&self) -> &str {
        match self {
            Self::Invalid(mistake) => &mistake.message,
            Self::Internal(place) => place,
        }
    }
}

/// A mistake in a pipeline file. Displays as `file:line:column: message`, the line itself, and
/// carets under the position.
#[derive(Clone, Debug)]
pub struct Mistake {
    /// The file, as named by the user.
    pub file: String,
    /// The position; line 0 for none (an unreadable file, a wrong `--set`).
    pub span: Span,
    /// The expected and the found.
    pub message: String,
    /// The text of the line.
    pub source_line: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, width } = self.span;
        if line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
        let length = self.source_line.chars().count();
        let before = column.saturating_sub(1);
        let start = if length > LONGEST_SHOWN { before.min(length).saturating_sub(LONGEST_SHOWN / 2) } else { 0 };
        let shown: String = self.source_line.chars().skip(start).take(LONGEST_SHOWN).collect();
        let indent = " ".repeat(before.min(length) - start);
        let carets = "^".repeat(width.min(shown.chars().count().saturating_sub(indent.len())).max(1));
        write!(f, "\n{line:5} | {shown}\n      | {indent}{carets}")
    }
}

/// The longest part of a line to show, in characters, around the position.
const LONGEST_SHOWN: usize = 400;

/// An error before its file is known. The span is none until a caller adds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Diagnostic {
    pub(super) message: String,
    pub(super) span: Option<Span>,
    /// Whether the program is to blame and not the file.
    is_internal: bool,
}

impl Diagnostic {
    /// A mistake at a position.
    pub(super) fn at(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: Some(span), is_internal: false }
    }

    /// A mistake without a position.
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, is_internal: false }
    }

    /// A defect of this program: `function: broken assumption`.
    pub(super) fn internal(place: impl Into<String>) -> Self {
        Self { message: place.into(), span: None, is_internal: true }
    }

    /// The same error, at `span` unless it has a position.
    pub(super) fn or_at(self, span: Span) -> Self {
        Self { span: self.span.or(Some(span)), ..self }
    }

    /// The same error with a prefix: `prefix: message`.
    pub(super) fn prefixed(self, prefix: &str) -> Self {
        Self { message: format!("{prefix}: {}", self.message), ..self }
    }

    /// The error of a file with this `text`.
    pub(super) fn in_file(self, file: &str, text: &str) -> PipelineError {
        if self.is_internal {
            return PipelineError::Internal(self.message);
        }
        let span = self.span.unwrap_or_default();
        let line = span.line.checked_sub(1).and_then(|index| text.lines().nth(index)).unwrap_or_default();
        // Tabs and other control characters would move the carets.
        let source_line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        PipelineError::Invalid(Mistake { file: file.to_string(), span, message: self.message, source_line })
    }
}
