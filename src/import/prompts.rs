//! Prompts as users bring them: with or without an id, as text or as messages, with columns of their own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

use crate::import::ImportError;
use crate::model::{Message, PromptContent};

/// A table of prompts, checked: every row has a prompt_id of its own and something to ask.
pub struct Prompts {
    /// The user's rows and columns, with `prompt_id` as Utf8.
    pub batches: Vec<RecordBatch>,
    asked: Vec<Prompt>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its name, unique in the table.
    pub id: String,
    /// What is asked.
    pub asked: PromptContent,
}

impl Prompts {
    /// Checks and completes a user's table; `name` is for errors. A missing `prompt_id` becomes the blake3 of what is asked.
    ///
    /// # Errors
    /// No column `prompt` or `messages`, a row without either, or an id that is there twice; with the row.
    pub fn read(name: &str, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        Self::read_rows(&|row| format!("table {name}, row {row}"), name, batches)
    }

    /// As [`Self::read`]; `place` says in an error where a row (from 0) is.
    pub(crate) fn read_rows(place: &dyn Fn(usize) -> String, name: &str, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        let (mut rows, mut completed, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for batch in batches {
            let asked = asked(place, name, rows.len(), &batch)?;
            let ids = ids(&batch, &asked)?;
            for (id, asked) in ids.as_string::<i32>().iter().zip(asked) {
                let row = rows.len();
                let at = |problem: String| ImportError::Input(format!("{}: {problem}", place(row)));
                let id = id.filter(|id| !id.is_empty()).ok_or_else(|| at("expected a prompt_id, found none".to_string()))?;
                if let Some(first) = seen.insert(id.to_string(), row) {
                    return Err(at(format!("prompt_id {id} is already that of row {first}")));
                }
                rows.push(Prompt { id: id.to_string(), asked });
            }
            completed.push(with_ids(&batch, ids)?);
        }
        if rows.is_empty() {
            return Err(ImportError::Input(format!("table {name}: expected at least one prompt, found none")));
        }
        Ok(Self { batches: completed, asked: rows })
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Whether there are none; a table that was read has some.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// The ids, in the table's order.
    pub fn ids(&self) -> Vec<&str> {
        self.asked.iter().map(|prompt| prompt.id.as_str()).collect()
    }

    /// The prompts in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = &Prompt> {
        self.asked.iter()
    }

    /// The prompts in the order of their ids, which is the order every stage works in: the table's own order does not matter.
    pub fn into_sorted(self) -> Vec<Prompt> {
        let mut prompts = self.asked;
        prompts.sort_by(|a, b| a.id.cmp(&b.id));
        prompts
    }
}

/// The blake3 of what is asked.
pub(crate) fn fingerprint(asked: &PromptContent) -> String {
    let mut hasher = blake3::Hasher::new();
    match asked {
        PromptContent::Text(text) => hasher.update(text.as_bytes()),
        PromptContent::Messages(messages) => messages.iter().fold(&mut hasher, |hasher, message| {
            // A separator that no text holds, so that messages do not run together.
            hasher.update(message.role.as_bytes()).update(&[0xff]).update(message.content.as_bytes()).update(&[0xff])
        }),
    };
    hasher.finalize().to_hex().to_string()
}

/// The ids of a batch's rows, as Utf8: the column `prompt_id`, else the blake3 of what is `asked`.
pub(crate) fn ids(batch: &RecordBatch, asked: &[PromptContent]) -> Result<ArrayRef, ImportError> {
    match batch.column_by_name("prompt_id") {
        Some(column) => Ok(cast(column, &DataType::Utf8)?),
        None => Ok(Arc::new(asked.iter().map(|asked| Some(fingerprint(asked))).collect::<StringArray>())),
    }
}

/// What each row asks; rows count on from `before`, and `place` says in an error where a row is.
pub(crate) fn asked(
    place: &dyn Fn(usize) -> String,
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
        .map(|index| row(index).map_err(|problem| ImportError::Input(format!("{}: {problem}", place(before + index)))))
        .collect()
}

fn conversation(messages: &ArrayRef, row: usize) -> Result<Vec<Message>, String> {
    let expected = || format!("messages: expected a list of structs with role and content, found {}", messages.data_type());
    let list = messages.as_list_opt::<i32>().ok_or_else(expected)?.value(row);
    let fields = list.as_struct_opt().ok_or_else(expected)?;
    let texts = |field: &str| fields.column_by_name(field).and_then(|column| cast(column, &DataType::Utf8).ok()).ok_or_else(expected);
    let (roles, contents) = (texts("role")?, texts("content")?);
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

fn with_ids(batch: &RecordBatch, ids: ArrayRef) -> Result<RecordBatch, ImportError> {
    let schema = batch.schema();
    let others = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != "prompt_id");
    let (mut fields, mut columns) = (vec![Arc::new(Field::new("prompt_id", DataType::Utf8, false))], vec![ids]);
    for (field, column) in others {
        fields.push(field.clone());
        columns.push(column.clone());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
