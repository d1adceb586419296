//! What is wrong with a pipeline file, and where.
//!
//! Knows how to show a position; exit codes and colours are the command line's.

use std::fmt;

use super::position::Span;

/// What is wrong with a pipeline file. Displays as `file:line:column: message`, the line itself, and carets under the place.
#[derive(Clone, Debug, thiserror::Error)]
pub struct PipelineError {
    /// The file, as it was named.
    pub file: String,
    /// Where in it; line 0 when no place is to blame (a file that cannot be read, a wrong `--set`).
    pub span: Span,
    /// What was expected and what was found.
    pub message: String,
    /// The text of the line.
    pub source_line: String,
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, width } = self.span;
        if line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
        let (length, before) = (self.source_line.chars().count(), column.saturating_sub(1));
        let start = if length > LONGEST_SHOWN { before.min(length).saturating_sub(LONGEST_SHOWN / 2) } else { 0 };
        let shown: String = self.source_line.chars().skip(start).take(LONGEST_SHOWN).collect();
        let indent = " ".repeat(before.min(length) - start);
        let carets = "^".repeat(width.min(shown.chars().count().saturating_sub(indent.len())).max(1));
        write!(f, "\n{line:5} | {shown}\n      | {indent}{carets}")
    }
}

/// Characters of a line that are shown; of a longer one, those around the fault.
const LONGEST_SHOWN: usize = 400;

/// What is wrong, before it is known in which file; `span` is none until someone who knows it adds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) span: Option<Span>,
}

impl Fault {
    /// A fault at a place.
    pub(super) fn at(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: Some(span) }
    }

    /// A fault that no place in the file is to blame for.
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None }
    }

    /// The fault, at `span` unless its place is known already.
    pub(super) fn or_at(self, span: Span) -> Self {
        Self { span: self.span.or(Some(span)), ..self }
    }

    /// The error of a file with this `text`.
    pub(super) fn in_file(self, file: &str, text: &str) -> PipelineError {
        let span = self.span.unwrap_or_default();
        let line = span.line.checked_sub(1).and_then(|index| text.lines().nth(index)).unwrap_or_default();
        // Tabs and other control characters would put the carets in the wrong place.
        let source_line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        PipelineError { file: file.to_string(), span, message: self.message, source_line }
    }
}
