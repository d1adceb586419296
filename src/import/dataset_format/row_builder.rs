//! Rows of any dataset format as our own columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Builder, StringBuilder};
use serde_json::Value;

use super::row::{Content, Row};
use super::source_columns::SourceColumns;
use crate::import::conversations::{Conversations, answer_column};
use crate::import::scores;
use crate::model::Message;

/// The builders of our own columns.
#[derive(Default)]
pub(super) struct RowBuilder {
    prompt: StringBuilder,
    messages: Conversations,
    response: Answers,
    chosen: Answers,
    rejected: Answers,
    chosen_score: Float64Builder,
    rejected_score: Float64Builder,
}

impl RowBuilder {
    /// Appends a row. Appends nothing if it fails.
    pub(super) fn add(&mut self, row: Row, is_conversation: bool) -> Result<(), String> {
        let (mut chosen_score, mut rejected_score) = row.scores;
        let resolved = row.resolved()?;
        if let (None, None, Some(chosen), Some(rejected)) = (chosen_score, rejected_score, &resolved.chosen, &resolved.rejected) {
            (chosen_score, rejected_score) = scores::of_messages(chosen, rejected);
        }
        let (text, messages) = match resolved.prompt {
            Some(Content::Text(text)) if is_conversation => (None, Some(vec![Message::new("user", text)])),
            Some(Content::Text(text)) => (Some(text), None),
            Some(Content::Messages(messages)) => (None, Some(messages)),
            None => (None, None),
        };
        self.prompt.append_option(text);
        self.messages.append(messages.as_deref());
        self.response.append(resolved.response);
        self.chosen.append(resolved.chosen);
        self.rejected.append(resolved.rejected);
        self.chosen_score.append_option(chosen_score);
        self.rejected_score.append_option(rejected_score);
        Ok(())
    }

    /// Our own columns, as far as the sources have them.
    pub(super) fn finish(mut self, sources: &SourceColumns) -> Vec<(String, ArrayRef)> {
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        let pairs = sources.chosen.is_some() || sources.sampled.is_some();
        let answers = [
            ("response", self.response, sources.response.is_some() || sources.ends_in_response),
            ("chosen", self.chosen, pairs),
            ("rejected", self.rejected, pairs),
        ];
        let mut add = |is_present: bool, name: &str, array: ArrayRef| {
            if is_present {
                columns.push((name.to_string(), array));
            }
        };
        add(!sources.is_conversation, "prompt", Arc::new(self.prompt.finish()));
        add(sources.is_conversation, "messages", self.messages.finish());
        for (name, mut answers, is_present) in answers {
            add(is_present, name, Arc::new(answers.texts.finish()));
            let wholes = answers.wholes.finish();
            add(is_present && wholes.null_count() < wholes.len(), &answer_column(name), Arc::new(wholes));
        }
        let scores = [self.chosen_score.finish(), self.rejected_score.finish()];
        let found = scores.iter().any(|scores| scores.null_count() < scores.len());
        let scored = found || sources.scores.is_some() || sources.sampled.is_some();
        for (name, scores) in [scores::CHOSEN, scores::REJECTED].into_iter().zip(scores) {
            add(scored, name, Arc::new(scores));
        }
        columns
    }
}

/// The builders of a column of answers: their texts, and all fields of messages with more.
#[derive(Default)]
struct Answers {
    texts: StringBuilder,
    wholes: StringBuilder,
}

impl Answers {
    fn append(&mut self, answer: Option<Message>) {
        let whole = answer.as_ref().and_then(Message::whole).map(|whole| Value::Object(whole.clone()).to_string());
        self.wholes.append_option(whole);
        self.texts.append_option(answer.map(|answer| answer.content));
    }
}
