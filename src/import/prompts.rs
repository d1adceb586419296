//! Tables of prompts: with or without ids, as text or as messages, with further columns.
//!
//! Knows the columns of a prompt. Knows no file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;

use super::conversations::{may_hold_messages, messages_at};
use super::dataset_format::without_rows;
use super::error::ImportError;
use super::row_errors::RowErrors;
use super::texts::texts;
use super::variables::Variables;
use crate::model::{Conversation, Message, PromptContent};
use crate::pipeline::spec::malformed::Malformed;

/// A checked table of prompts: every row has a unique prompt_id and a content.
pub struct Prompts {
    /// The user's rows and columns, with `prompt_id` as Utf8.
    pub batches: Vec<RecordBatch>,
    prompts: Vec<Prompt>,
    /// The rows with the prompt of an earlier row.
    pub(super) repeated: usize,
}

/// The reaction to a prompt that several rows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Further rows get the ids `ID#2`, `ID#3`, … in the order of the rows.
    Number,
    /// An error: other tables name the prompt by its id.
    Refuse,
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
    /// No column `prompt` or `messages`, a row without either, or an id of two prompts; with the
    /// row.
    pub fn from_batches(name: &str, repeats: Repeats, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        let location = |row: usize| format!("table {name}, row {row}");
        Self::from_located_batches(&mut RowErrors::new(Malformed::Stop, &location), name, repeats, batches)
    }

    /// As [`Self::from_batches`], with another reaction to malformed rows.
    pub(super) fn from_located_batches(
        errors: &mut RowErrors,
        name: &str,
        repeats: Repeats,
        batches: Vec<RecordBatch>,
    ) -> Result<Self, ImportError> {
        let mut prompts: Vec<Prompt> = Vec::new();
        let mut completed = Vec::new();
        let mut taken = Taken::default();
        let mut before = 0;
        for batch in batches {
            let ids = ids(&batch).map_err(|problem| ImportError::Input(format!("{}: {problem}", errors.place(before))))?;
            let mut left_out = Vec::new();
            let first = prompts.len();
            for (index, content) in contents(name, &batch)?.into_iter().enumerate() {
                let row = before + index;
                let checked = content.and_then(|content| {
                    check_end(&content)?;
                    let id = taken.id(ids.id(index, &content)?, &content, row, repeats)?;
                    Ok(Prompt { id, content })
                });
                match checked {
                    Ok(prompt) => prompts.push(prompt),
                    Err(problem) => {
                        errors.malformed(row, &problem)?;
                        left_out.push(index);
                    }
                }
            }
            let ids: StringArray = prompts[first..].iter().map(|prompt| Some(prompt.id.as_str())).collect();
            completed.push(with_ids(&without_rows(&batch, left_out)?, Arc::new(ids))?);
            before += batch.num_rows();
        }
        if prompts.is_empty() {
            return Err(ImportError::Input(format!("table {name}: expected at least one prompt, found none{}", errors.why_none())));
        }
        Ok(Self { batches: completed, prompts, repeated: taken.repeated })
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
        PromptContent::Messages(conversation) => {
            // UTF-8 never contains these bytes, so they separate messages and their parts.
            for message in &conversation.messages {
                hasher.update(message.role.as_bytes()).update(&[0xff]).update(message.content.as_bytes()).update(&[0xff]);
                if let Some(whole) = message.whole() {
                    hasher.update(&[0xfe]).update(Value::Object(whole.clone()).to_string().as_bytes()).update(&[0xff]);
                }
            }
            if !conversation.variables.is_empty() {
                hasher.update(&[0xfd]).update(Value::Object(conversation.variables.clone()).to_string().as_bytes());
            }
            &mut hasher
        }
    };
    hasher.finalize().to_hex().to_string()
}

/// Refuses a conversation without a question at its end.
fn check_end(content: &PromptContent) -> Result<(), String> {
    match content {
        PromptContent::Messages(asked) if asked.messages.last().is_some_and(|last| last.role == "assistant") => {
            let roles = asked.messages.iter().map(|message| message.role.as_str()).collect::<Vec<_>>().join(", ");
            Err(format!("expected a prompt that the assistant answers, found messages of {roles}"))
        }
        _ => Ok(()),
    }
}

/// The ids of the prompts so far.
#[derive(Default)]
struct Taken {
    /// By the id in the table: the first row, the hash of its prompt, and the number of rows.
    own: HashMap<String, (usize, String, usize)>,
    all: HashSet<String>,
    repeated: usize,
}

impl Taken {
    /// The id of a row with the id `own` in the table.
    fn id(&mut self, own: String, content: &PromptContent, row: usize, repeats: Repeats) -> Result<String, String> {
        let hash = fingerprint(content);
        let id = match self.own.get_mut(&own) {
            None => {
                self.own.insert(own.clone(), (row, hash, 1));
                own
            }
            Some((first, _, _)) if repeats == Repeats::Refuse => return Err(format!("prompt_id {own} is already that of row {first}")),
            Some((first, other, _)) if *other != hash => {
                return Err(format!("prompt_id {own} is already that of row {first}, which has another prompt"));
            }
            Some((_, _, rows)) => {
                *rows += 1;
                self.repeated += 1;
                format!("{own}#{rows}")
            }
        };
        if !self.all.insert(id.clone()) {
            return Err(format!("prompt_id {id} is that of one prompt and the name of a further row of another; rename the prompt"));
        }
        Ok(id)
    }
}

/// The ids of a batch's rows.
pub(super) struct Ids(Option<StringArray>);

impl Ids {
    /// The id of a row: that of the table, else the hash of its prompt.
    ///
    /// # Errors
    /// The table has ids, but this row has none.
    pub(super) fn id(&self, row: usize, content: &PromptContent) -> Result<String, String> {
        let Some(ids) = &self.0 else { return Ok(fingerprint(content)) };
        let id = Some(ids.value(row)).filter(|id| ids.is_valid(row) && !id.is_empty());
        id.map(str::to_string).ok_or_else(|| "expected a prompt_id, found none".to_string())
    }
}

/// The column `prompt_id` of a batch as texts, if there is one: of texts, whole numbers, decimal
/// numbers or UUIDs.
///
/// # Errors
/// It has another type. Other values have no one text: `1.0` may have been 1, and bytes may be any.
pub(super) fn ids(batch: &RecordBatch) -> Result<Ids, String> {
    let Some(column) = batch.column_by_name("prompt_id") else { return Ok(Ids(None)) };
    if let DataType::FixedSizeBinary(16) = column.data_type() {
        let bytes = column.as_fixed_size_binary().iter();
        return Ok(Ids(Some(bytes.map(|bytes| bytes.map(uuid)).collect())));
    }
    let texts = cast(column, &DataType::Utf8).ok().filter(|_| is_id(column.data_type()));
    match texts {
        Some(texts) => Ok(Ids(Some(texts.as_string::<i32>().clone()))),
        None => {
            let expected = "prompt_id: expected texts, whole or decimal numbers, or UUIDs";
            Err(format!("{expected}, found {}; write them as texts, or name another column with `map:`", column.data_type()))
        }
    }
}

/// Whether values of this type have one text each.
fn is_id(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_id(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        other => other.is_integer() || other.is_decimal(),
    }
}

/// A UUID as text: 32 hexadecimal digits in groups.
fn uuid(bytes: &[u8]) -> String {
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [digits(0..4), digits(4..6), digits(6..8), digits(8..10), digits(10..16)].join("-")
}

/// The content of each row's prompt, or its problem.
///
/// # Errors
/// There is no column with prompts.
pub(super) fn contents(name: &str, batch: &RecordBatch) -> Result<Vec<Result<PromptContent, String>>, ImportError> {
    let texts = batch.schema_ref().column_with_name("prompt").map(|(index, field)| texts(field, batch.column(index)));
    let messages = batch.column_by_name("messages");
    if texts.is_none() && messages.is_none() {
        let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
        return Err(ImportError::Input(format!("table {name}: expected a column prompt or messages, found {found}")));
    }
    let variables = Variables::new(batch);
    let row = |index: usize| {
        if let Some(problem) = texts.as_ref().and_then(|texts| texts.problem(index)) {
            return Err(problem.to_string());
        }
        let text = texts.as_ref().map(|texts| &texts.values).filter(|texts| texts.is_valid(index));
        match (text, messages.filter(|messages| messages.is_valid(index))) {
            (Some(texts), None) => match variables.at(index)?.keys().next() {
                Some(name) => Err(format!("{name}: expected messages, for a chat template to read it, found a prompt of text")),
                None => Ok(PromptContent::Text(texts.value(index).to_string())),
            },
            (None, Some(messages)) => {
                let conversation = Conversation { messages: conversation(messages, index)?, variables: variables.at(index)? };
                Ok(PromptContent::Messages(conversation))
            }
            (Some(_), Some(_)) => Err("expected a prompt or messages, found both".to_string()),
            (None, None) => Err("expected a prompt or messages, found neither".to_string()),
        }
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// The messages of one row.
fn conversation(array: &ArrayRef, row: usize) -> Result<Vec<Message>, String> {
    if !may_hold_messages(array.data_type()) {
        return Err(format!("messages: expected a list of structs with role and content, found {}", array.data_type()));
    }
    match messages_at("messages", array, row)? {
        Some(messages) if !messages.is_empty() => Ok(messages),
        _ => Err("messages: expected at least one, found none".to_string()),
    }
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
