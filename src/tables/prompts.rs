//! Prompts: what is asked of the policy, as text or as a conversation.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::cell::{Cell, Message};
use super::check::not_empty;
use super::conform::widen;
use super::error::column_names;
use super::{TableError, TableKind};

table! {
    Prompts, version 1, key [prompt_id];
    /// One prompt: either `prompt` or `messages` is there.
    pub struct Row {
        /// Unique name, from the data, else the blake3 of what is asked.
        pub prompt_id: String,
        /// Plain text.
        pub prompt: Option<String>,
        /// A conversation, for the model's chat template.
        pub messages: Option<Vec<Message>>,
        /// What a good response says, for rewards that compare.
        pub reference_answer: Option<String>,
        /// The family of tasks the prompt belongs to.
        pub group: Option<String>,
        /// Anything else, as JSON.
        pub metadata: Option<String>,
    }
}

impl Row {
    /// An id, and either a prompt or at least one message.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", &self.prompt_id)?;
        match (&self.prompt, &self.messages) {
            (Some(_), Some(_)) => Err("expected prompt or messages, found both".to_string()),
            (None, None) => Err("expected prompt or messages, found neither".to_string()),
            (None, Some(messages)) if messages.is_empty() => Err("messages: expected at least one, found none".to_string()),
            _ => Ok(()),
        }
    }
}

/// The prompts in a table from outside, whose columns may be in any order and of any text type, and may be more than these.
///
/// There must be `prompt` (text) or `messages` (lists of `role` and `content`); of both, a row has one. `prompt_id` may be text or a whole
/// number; without it a prompt is named by the blake3 hash of what it asks. `reference_answer`, `group` and `metadata` may be missing.
///
/// # Errors
/// Neither column is there, a column has another type, or a row breaks a rule of the table, such as two equal prompts.
pub fn from_outside(batches: &[RecordBatch]) -> Result<RecordBatch, TableError> {
    let mut all = Vec::new();
    for batch in batches {
        let prompts = texts(batch, "prompt")?;
        let messages = batch.column_by_name("messages").filter(|array| *array.data_type() != DataType::Null);
        if prompts.is_none() && messages.is_none() {
            let (table, found) = (TableKind::Prompts.to_string(), column_names(batch));
            return Err(TableError::MissingColumn { table, column: "prompt or messages".to_string(), found });
        }
        let (ids, answers) = (texts(batch, "prompt_id")?, texts(batch, "reference_answer")?);
        let (groups, metadata) = (texts(batch, "group")?, texts(batch, "metadata")?);
        for row in 0..batch.num_rows() {
            let failed = |problem| TableError::row(TableKind::Prompts, all.len(), problem);
            let messages = messages.map(|array| Option::<Vec<Message>>::value(array, row)).transpose().map_err(failed)?.flatten();
            let prompt = text(&prompts, row);
            let prompt_id = text(&ids, row).unwrap_or_else(|| name_of(prompt.as_deref(), messages.as_deref()));
            let (reference_answer, group, metadata) = (text(&answers, row), text(&groups, row), text(&metadata, row));
            all.push(Row { prompt_id, prompt, messages, reference_answer, group, metadata });
        }
    }
    let all = batch(&all);
    TableKind::Prompts.check(&all).map(|()| all)
}

/// The column `name` as text; `None` if there is no such column or nothing in it.
fn texts(batch: &RecordBatch, name: &str) -> Result<Option<StringArray>, TableError> {
    let Some(array) = batch.column_by_name(name) else { return Ok(None) };
    let array: ArrayRef =
        if array.data_type().is_integer() { cast(array, &DataType::Utf8).unwrap_or_else(|_| Arc::clone(array)) } else { Arc::clone(array) };
    let text = widen(&array, &DataType::Utf8).and_then(Result::ok);
    let text = text.as_ref().and_then(|text| text.as_any().downcast_ref::<StringArray>()).cloned();
    text.map(Some).ok_or_else(|| TableError::ColumnType {
        table: TableKind::Prompts.to_string(),
        column: name.to_string(),
        expected: "text".to_string(),
        found: array.data_type().to_string(),
    })
}

fn text(texts: &Option<StringArray>, row: usize) -> Option<String> {
    texts.as_ref().filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row).to_string())
}

/// A name that equal prompts share: 32 hexadecimal digits.
fn name_of(prompt: Option<&str>, messages: Option<&[Message]>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prompt.unwrap_or_default().as_bytes());
    for message in messages.unwrap_or_default() {
        hasher.update(format!("{}:{}{}:{}", message.role.len(), message.role, message.content.len(), message.content).as_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}
