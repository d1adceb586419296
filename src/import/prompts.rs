//! Tables of prompts: with or without ids, as text or as messages, with further columns.
//!
//! Knows the columns of a prompt. Knows no file.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

use super::error::ImportError;
use crate::model::{Message, PromptContent};

/// A checked table of prompts: every row has a unique prompt_id and a content.
pub struct Prompts {
    /// The user's rows and columns, with `prompt_id` as Utf8.
    pub batches: Vec<RecordBatch>,
    prompts: Vec<Prompt>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its name, unique in the table.
    pub id: String,
    /// Its text or messages.
    pub content: PromptContent,
}

impl Prompts {
    /// Checks and completes a user's table; `name` is for errors. A missing `prompt_id` becomes the
    /// blake3 hash of the content.
    ///
    /// # Errors
    /// No column `prompt` or `messages`, a row without either, or a duplicate id; with the row.
    pub fn from_batches(name: &str, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        Self::from_located_batches(&|row| format!("table {name}, row {row}"), name, batches)
    }

    /// As [`Self::from_batches`]; `location` names a row (from 0) in an error.
    pub(crate) fn from_located_batches(
        location: &dyn Fn(usize) -> String,
        name: &str,
        batches: Vec<RecordBatch>,
    ) -> Result<Self, ImportError> {
        let mut prompts: Vec<Prompt> = Vec::new();
        let mut completed = Vec::new();
        let mut seen = HashMap::new();
        for batch in batches {
            let contents = contents(location, name, prompts.len(), &batch)?;
            let ids = ids(&batch, &contents)?;
            for (id, content) in ids.as_string::<i32>().iter().zip(contents) {
                let row = prompts.len();
                let at = |problem: String| ImportError::Input(format!("{}: {problem}", location(row)));
                let id = id.filter(|id| !id.is_empty()).ok_or_else(|| at("expected a prompt_id, found none".to_string()))?;
                if let Some(first) = seen.insert(id.to_string(), row) {
                    return Err(at(format!("prompt_id {id} is already that of row {first}")));
                }
                prompts.push(Prompt { id: id.to_string(), content });
            }
            completed.push(with_ids(&batch, ids)?);
        }
        if prompts.is_empty() {
            return Err(ImportError::Input(format!("table {name}: expected at least one prompt, found none")));
        }
        Ok(Self { batches: completed, prompts })
    }

    /// The number of prompts.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there are none. A checked table has at least one.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// The ids, in the table's order.
    pub fn ids(&self) -> Vec<&str> {
        self.prompts.iter().map(|prompt| prompt.id.as_str()).collect()
    }

    /// The prompts in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = &Prompt> {
        self.prompts.iter()
    }

    /// The prompts in the order of their ids. Every operator works in this order; the table's own
    /// order does not matter.
    pub fn into_sorted(self) -> Vec<Prompt> {
        let mut prompts = self.prompts;
        prompts.sort_by(|a, b| a.id.cmp(&b.id));
        prompts
    }
}

/// The blake3 hash of a prompt's content.
pub(crate) fn fingerprint(content: &PromptContent) -> String {
    let mut hasher = blake3::Hasher::new();
    match content {
        PromptContent::Text(text) => hasher.update(text.as_bytes()),
        PromptContent::Messages(messages) => messages.iter().fold(&mut hasher, |hasher, message| {
            // UTF-8 never contains this byte, so it separates messages.
            hasher.update(message.role.as_bytes()).update(&[0xff]).update(message.content.as_bytes()).update(&[0xff])
        }),
    };
    hasher.finalize().to_hex().to_string()
}

/// The ids of a batch's rows, as Utf8: the column `prompt_id`, else the hashes of the `contents`.
pub(crate) fn ids(batch: &RecordBatch, contents: &[PromptContent]) -> Result<ArrayRef, ImportError> {
    match batch.column_by_name("prompt_id") {
        Some(column) => Ok(cast(column, &DataType::Utf8)?),
        None => Ok(Arc::new(contents.iter().map(|content| Some(fingerprint(content))).collect::<StringArray>())),
    }
}

/// The content of each row's prompt. Rows count on from `before`; `location` names a row in an
/// error.
pub(crate) fn contents(
    location: &dyn Fn(usize) -> String,
    name: &str,
    before: usize,
    batch: &RecordBatch,
) -> Result<Vec<PromptContent>, ImportError> {
    let texts = batch.column_by_name("prompt").map(|column| cast(column, &DataType::Utf8)).transpose()?;
    let messages = batch.column_by_name("messages");
    if texts.is_none() && messages.is_none() {
        let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
        return Err(ImportError::Input(format!("table {name}: expected a column prompt or messages, found {found}")));
    }
    let row = |index: usize| {
        let text = texts.as_ref().map(|texts| texts.as_string::<i32>()).filter(|texts| texts.is_valid(index));
        match (text, messages.filter(|messages| messages.is_valid(index))) {
            (Some(texts), None) => Ok(PromptContent::Text(texts.value(index).to_string())),
            (None, Some(messages)) => conversation(messages, index).map(PromptContent::Messages),
            (Some(_), Some(_)) => Err("expected a prompt or messages, found both".to_string()),
            (None, None) => Err("expected a prompt or messages, found neither".to_string()),
        }
    };
    (0..batch.num_rows())
        .map(|index| row(index).map_err(|problem| ImportError::Input(format!("{}: {problem}", location(before + index)))))
        .collect()
}

/// The messages of one row.
fn conversation(messages: &ArrayRef, row: usize) -> Result<Vec<Message>, String> {
    let expected = || format!("messages: expected a list of structs with role and content, found {}", messages.data_type());
    let list = messages.as_list_opt::<i32>().ok_or_else(expected)?.value(row);
    let fields = list.as_struct_opt().ok_or_else(expected)?;
    let texts = |field: &str| fields.column_by_name(field).and_then(|column| cast(column, &DataType::Utf8).ok()).ok_or_else(expected);
    let roles = texts("role")?;
    let contents = texts("content")?;
    if list.is_empty() {
        return Err("messages: expected at least one, found none".to_string());
    }
    let messages = roles.as_string::<i32>().iter().zip(contents.as_string::<i32>().iter());
    let message = |(index, (role, content)): (usize, (Option<&str>, Option<&str>))| match (role, content) {
        (Some(role), Some(content)) => Ok(Message { role: role.to_string(), content: content.to_string() }),
        _ => Err(format!("messages: message {index}: expected a role and a content, found null")),
    };
    messages.enumerate().map(message).collect()
}

/// The batch with `ids` as its first column.
fn with_ids(batch: &RecordBatch, ids: ArrayRef) -> Result<RecordBatch, ImportError> {
    let schema = batch.schema();
    let others = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != "prompt_id");
    let mut fields = vec![Arc::new(Field::new("prompt_id", DataType::Utf8, false))];
    let mut columns = vec![ids];
    for (field, column) in others {
        fields.push(field.clone());
        columns.push(column.clone());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
