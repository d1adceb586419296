//! The rows of one part of a table. Knows no operator.

use std::ops::Range;

use super::OperatorError;

/// The rows `range` of `rows`; `place` is the calling module.
///
/// # Errors
/// An internal error for a range beyond the rows.
pub fn rows_of<'a, R>(rows: &'a [R], range: Range<usize>, place: &'static str) -> Result<&'a [R], OperatorError> {
    let problem = || format!("expected rows {} to {} of a table of {} rows", range.start, range.end, rows.len());
    rows.get(range.clone()).ok_or_else(|| OperatorError::internal(place, problem()))
}

/// A count of tokens or rows as an unsigned number; `place` is the calling module.
///
/// # Errors
/// An internal error for a count below 0.
pub fn unsigned(count: i32, place: &'static str) -> Result<usize, OperatorError> {
    usize::try_from(count).map_err(|_| OperatorError::internal(place, format!("expected a count of 0 or more, found {count}")))
}

/// A count of tokens or rows as the tables hold it, Int32; `place` is the calling module.
///
/// # Errors
/// An internal error for a count above the largest Int32.
pub fn signed(count: usize, place: &'static str) -> Result<i32, OperatorError> {
    i32::try_from(count).map_err(|_| OperatorError::internal(place, format!("expected a count of at most {}, found {count}", i32::MAX)))
}
