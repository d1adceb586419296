//! A response on its way to a process.
//!
//! Knows its id, not the format of the way.

use super::super::response::ResponseToScore;

/// A response with its id.
pub(super) struct InHand<'a> {
    pub(super) id: String,
    pub(super) response: &'a ResponseToScore<'a>,
}

impl<'a> InHand<'a> {
    /// Ids are the same in every run, and unique in a table of responses.
    pub(super) fn new(response: &'a ResponseToScore<'a>) -> Self {
        let row = response.row;
        Self { id: format!("{}/{}/{}", row.prompt_id, row.sampled_iteration, row.response_index), response }
    }
}
