//! Rows of a table that break a rule: an error with their place, or left out and counted.
//!
//! Knows no rule.

use std::collections::BTreeSet;

use super::error::ImportError;
use super::left_out::LeftOut;
use crate::pipeline::spec::malformed::Malformed;

/// The reaction to malformed rows of one table.
pub(crate) struct RowErrors<'a> {
    malformed: Malformed,
    /// Names a row (from 0) of the source in an error.
    location: &'a dyn Fn(usize) -> String,
    /// The rows of the source by the rows under check; the same where it is `None`.
    rows: Option<Vec<usize>>,
    /// The left-out rows under check.
    skipped: BTreeSet<usize>,
    left_out: LeftOut,
}

impl<'a> RowErrors<'a> {
    /// Errors of a table with these locations.
    pub(crate) fn new(malformed: Malformed, location: &'a dyn Fn(usize) -> String) -> Self {
        Self { malformed, location, rows: None, skipped: BTreeSet::new(), left_out: LeftOut::default() }
    }

    /// The name of a row for an error.
    pub(crate) fn place(&self, row: usize) -> String {
        (self.location)(self.source_row(row))
    }

    fn source_row(&self, row: usize) -> usize {
        self.rows.as_ref().and_then(|rows| rows.get(row)).copied().unwrap_or(row)
    }

    /// Takes note of a malformed row.
    ///
    /// # Errors
    /// The problem with the row's place, under `malformed: stop`.
    pub(crate) fn malformed(&mut self, row: usize, problem: &str) -> Result<(), ImportError> {
        match self.malformed {
            Malformed::Stop => Err(ImportError::Input(format!("{}: {problem}", self.place(row)))),
            Malformed::Skip => {
                if self.skipped.insert(row) {
                    let source_row = self.source_row(row);
                    self.left_out.add(problem, || (self.location)(source_row));
                }
                Ok(())
            }
        }
    }

    /// The rows left out since the last call. From now on the `count` rows under check are those
    /// without them.
    pub(crate) fn take_skipped(&mut self, count: usize) -> BTreeSet<usize> {
        let skipped = std::mem::take(&mut self.skipped);
        if !skipped.is_empty() {
            self.rows = Some((0..count).filter(|row| !skipped.contains(row)).map(|row| self.source_row(row)).collect());
        }
        skipped
    }

    /// The rows left out so far behind the message of an empty table.
    pub(crate) fn why_none(&self) -> String {
        self.left_out.text(self.left_out.count()).map_or(String::new(), |text| format!("; {text}"))
    }

    /// All rows left out.
    pub(crate) fn into_left_out(self) -> LeftOut {
        self.left_out
    }
}
