//! Responses without a reward that the next run asks for again: those whose judge failed.
//!
//! Knows rows and parts, not how a response is scored.

use std::collections::HashSet;

use super::OperatorError;
use crate::store::TableWriter;
use crate::tables::{responses, rewards};

/// The responses with an error of their own: they are never scored.
pub(super) struct Unanswered<'a>(HashSet<(&'a str, i32, i32)>);

impl<'a> Unanswered<'a> {
    pub(super) fn of(all: &'a [responses::Row]) -> Self {
        let failed = all.iter().filter(|row| row.error.is_some());
        Self(failed.map(|row| (row.prompt_id.as_str(), row.sampled_iteration, row.response_index)).collect())
    }

    /// The error of a reward whose response has none.
    fn failure<'r>(&self, row: &'r rewards::Row) -> Option<&'r str> {
        let key = (row.prompt_id.as_str(), row.sampled_iteration, row.response_index);
        row.error.as_deref().filter(|_| !self.0.contains(&key))
    }
}

/// The committed parts with such a failure.
pub(super) fn parts(writer: &TableWriter, unanswered: &Unanswered) -> Result<Vec<usize>, OperatorError> {
    let mut parts = Vec::new();
    for part in 0..writer.part_count() {
        let rows = writer.committed_part(part)?.map(|batch| rewards::rows(&batch)).transpose()?;
        if rows.iter().flatten().any(|row| unanswered.failure(row).is_some()) {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// The number of such failures, and the first one's prompt and error.
pub(super) fn first(writer: &TableWriter, unanswered: &Unanswered) -> Result<Option<(usize, String)>, OperatorError> {
    let mut count = 0;
    let mut first = None;
    for batch in writer.committed()? {
        for row in rewards::rows(&batch)? {
            if let Some(error) = unanswered.failure(&row) {
                count += 1;
                first.get_or_insert_with(|| format!("prompt {}: {error}", row.prompt_id));
            }
        }
    }
    Ok(first.map(|first| (count, first)))
}
