//! Rows of any dataset format as our own columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringBuilder};

use super::row::Row;
use super::source_columns::SourceColumns;
use crate::import::conversations::Conversations;
use crate::import::scores;
use crate::model::{Message, PromptContent};

/// The builders of our own columns.
#[derive(Default)]
pub(super) struct RowBuilder {
    prompt: StringBuilder,
    messages: Conversations,
    response: StringBuilder,
    chosen: StringBuilder,
    rejected: StringBuilder,
    chosen_score: Float64Builder,
    rejected_score: Float64Builder,
}

impl RowBuilder {
    /// Appends a row. Appends nothing if it fails.
    pub(super) fn add(&mut self, row: Row, is_conversation: bool) -> Result<(), String> {
        let (chosen_score, rejected_score) = row.scores;
        let resolved = row.resolved()?;
        let (text, messages) = match resolved.prompt {
            Some(PromptContent::Text(text)) if is_conversation => (None, Some(vec![Message { role: "user".to_string(), content: text }])),
            Some(PromptContent::Text(text)) => (Some(text), None),
            Some(PromptContent::Messages(messages)) => (None, Some(messages)),
            None => (None, None),
        };
        self.prompt.append_option(text);
        self.messages.append(messages.as_deref());
        self.response.append_option(resolved.response);
        self.chosen.append_option(resolved.chosen);
        self.rejected.append_option(resolved.rejected);
        self.chosen_score.append_option(chosen_score);
        self.rejected_score.append_option(rejected_score);
        Ok(())
    }

    /// Our own columns, as far as the sources have them.
    pub(super) fn finish(mut self, sources: &SourceColumns) -> Vec<(String, ArrayRef)> {
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        let mut add = |is_present: bool, name: &str, array: ArrayRef| {
            if is_present {
                columns.push((name.to_string(), array));
            }
        };
        let pairs = sources.chosen.is_some() || sources.sampled.is_some();
        add(!sources.is_conversation, "prompt", Arc::new(self.prompt.finish()));
        add(sources.is_conversation, "messages", self.messages.finish());
        add(sources.response.is_some() || sources.ends_in_response, "response", Arc::new(self.response.finish()));
        add(pairs, "chosen", Arc::new(self.chosen.finish()));
        add(pairs, "rejected", Arc::new(self.rejected.finish()));
        let scored = sources.scores.is_some() || sources.sampled.is_some();
        add(scored, scores::CHOSEN, Arc::new(self.chosen_score.finish()));
        add(scored, scores::REJECTED, Arc::new(self.rejected_score.finish()));
        columns
    }
}
