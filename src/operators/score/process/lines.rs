//! Responses as lines of JSON for a process.
//!
//! Knows the fields of a line, not the process.

use arrow::array::RecordBatch;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::OperatorError;
use super::super::response::ResponseToScore;
use super::in_hand::InHand;
use crate::import::whole_value_at;
use crate::model::{Message, PromptContent};

/// Name of this module in internal errors.
const PLACE: &str = "operators::score::process::lines";

/// A response as a process reads it.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    prompt_id: &'a str,
    sampled_iteration: i32,
    response_index: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [Message]>,
    text: &'a str,
    token_ids: &'a [i32],
    token_count: usize,
    finish_reason: String,
    reference_answer: Option<&'a str>,
    columns: Map<String, Value>,
    /// How many responses of the batch follow.
    more: usize,
}

/// The lines of some responses. `batches` are the table of their prompts.
pub(super) fn lines(batches: &[RecordBatch], in_hand: &[InHand]) -> Result<Vec<u8>, OperatorError> {
    let mut bytes = Vec::new();
    for (index, InHand { id, response }) in in_hand.iter().enumerate() {
        let row = response.row;
        let prompt = response.prompt()?;
        let (text, messages) = match &prompt.content {
            PromptContent::Text(text) => (Some(text.as_str()), None),
            PromptContent::Messages(conversation) => (None, Some(conversation.messages.as_slice())),
        };
        let token_ids = response.token_ids();
        let line = Line {
            id,
            prompt_id: &row.prompt_id,
            sampled_iteration: row.sampled_iteration,
            response_index: row.response_index,
            prompt: text,
            messages,
            text: &row.text,
            token_ids,
            token_count: token_ids.len(),
            finish_reason: row.finish_reason.to_string(),
            reference_answer: prompt.reference_answer.as_deref(),
            columns: columns(batches, response)?,
            more: in_hand.len() - index - 1,
        };
        serde_json::to_writer(&mut bytes, &line).map_err(|error| OperatorError::internal(PLACE, error.to_string()))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The columns of a response's prompt besides the prompt itself.
fn columns(batches: &[RecordBatch], response: &ResponseToScore) -> Result<Map<String, Value>, OperatorError> {
    let (batch, row) = response.prompt()?.place;
    let batch = batches.get(batch).ok_or_else(|| OperatorError::internal(PLACE, "a prompt is in no batch"))?;
    let mut columns = Map::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        if !["prompt", "messages"].contains(&field.name().as_str()) {
            let value = whole_value_at(field, array, row)
                .map_err(|problem| OperatorError::Input(format!("prompts, {}: column {problem}", response.description())))?;
            columns.insert(field.name().clone(), value);
        }
    }
    Ok(columns)
}
