//! Conversations as an Arrow column: lists of role and content, the fields of TRL and of chat
//! templates. Messages with further fields have all of them as JSON beside.
//!
//! Knows columns of messages, not their place in a row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, ListBuilder, RecordBatch, StringBuilder, StructArray, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;

use super::formats::is_json;
use super::json_value::{items_at, parse, text_at, value_at};
use crate::model::{self, Message, kind};

/// The field of our own messages with all fields of a message, as JSON.
const WHOLE: &str = "json";

/// The builder of a column of conversations.
pub struct Conversations {
    lists: ListBuilder<StructBuilder>,
    /// Whether a message is more than a role and a text.
    has_whole: bool,
}

fn message_fields() -> Fields {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    Fields::from(vec![text("role", false), text("content", false), text(WHOLE, true)])
}

fn item(fields: Fields) -> Field {
    Field::new_list_field(DataType::Struct(fields), false)
}

impl Default for Conversations {
    fn default() -> Self {
        let messages = StructBuilder::from_fields(message_fields(), 0);
        Self { lists: ListBuilder::new(messages).with_field(item(message_fields())), has_whole: false }
    }
}

impl Conversations {
    /// Adds a row; `None` is null.
    pub fn append(&mut self, messages: Option<&[Message]>) {
        for message in messages.unwrap_or_default() {
            let whole = message.whole().map(|whole| Value::Object(whole.clone()).to_string());
            self.has_whole |= whole.is_some();
            let texts = [Some(message.role.clone()), Some(message.content.clone()), whole];
            for (index, text) in texts.into_iter().enumerate() {
                // `default` made the fields with this type.
                if let Some(texts) = self.lists.values().field_builder::<StringBuilder>(index) {
                    texts.append_option(text);
                }
            }
            self.lists.values().append(true);
        }
        self.lists.append(messages.is_some());
    }

    /// The column. Messages have a field `json` only where one of them needs it.
    pub fn finish(mut self) -> ArrayRef {
        let lists = self.lists.finish();
        if self.has_whole { Arc::new(lists) } else { Arc::new(with_fields(lists, false)) }
    }
}

/// The lists with or without the field `json` of their messages; it is null where it is new.
fn with_fields(lists: ListArray, whole: bool) -> ListArray {
    let (_, offsets, values, nulls) = lists.into_parts();
    let mut fields = message_fields().to_vec();
    let mut columns: Vec<ArrayRef> = match values.as_struct_opt() {
        Some(messages) => messages.columns().to_vec(),
        None => Vec::new(),
    };
    columns.truncate(2);
    if whole {
        columns.push(arrow::array::new_null_array(&DataType::Utf8, values.len()));
    } else {
        fields.truncate(2);
    }
    let fields = Fields::from(fields);
    let messages = StructArray::new(fields.clone(), columns, None);
    ListArray::new(Arc::new(item(fields)), offsets, Arc::new(messages), nulls)
}

/// Conversations of [`Conversations`] with the field `json`, null where they had none; another
/// column as it is.
pub(super) fn with_whole(array: &ArrayRef) -> ArrayRef {
    match array.as_list_opt::<i32>() {
        Some(lists) if lists.value_type() == DataType::Struct(plain_fields()) => Arc::new(with_fields(lists.clone(), true)),
        _ => array.clone(),
    }
}

fn plain_fields() -> Fields {
    message_fields().iter().take(2).cloned().collect()
}

/// Whether values of this type may be conversations, or single messages.
pub(super) fn may_hold_messages(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => {
            let has = |name: &str| fields.iter().any(|field| field.name() == name);
            (has("role") && has("content")) || (has("from") && has("value"))
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => match item.data_type() {
            DataType::Struct(_) => may_hold_messages(item.data_type()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => is_json(item),
            _ => false,
        },
        _ => false,
    }
}

/// The messages of a row of any column that may hold them; `None` for null. `name` is for errors.
///
/// # Errors
/// A message without role and content, of an unknown speaker, or with a content that is no text.
pub(super) fn messages_at(name: &str, array: &ArrayRef, row: usize) -> Result<Option<Vec<Message>>, String> {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Ok(None);
    }
    let Some(items) = items_at(array, row) else {
        return message_at(name, 0, array, row).map(|message| Some(vec![message]));
    };
    (0..items.len()).map(|index| message_at(name, index, &items, index)).collect::<Result<_, _>>().map(Some)
}

fn message_at(name: &str, index: usize, array: &ArrayRef, row: usize) -> Result<Message, String> {
    let at = |problem: String| format!("{name}: message {index}: {problem}");
    let DataType::Struct(fields) = array.data_type() else {
        return match json_at(name, array, row).map_err(at)? {
            Some(Value::Object(fields)) => self::message(name, index, fields),
            other => Err(at(format!("expected a role and a content, found {}", other.as_ref().map_or("null", kind)))),
        };
    };
    let columns = array.as_struct();
    let mut message = model::Fields::new();
    if array.is_valid(row) {
        for (field, column) in fields.iter().zip(columns.columns()) {
            if column.is_valid(row) {
                message.insert(field.name().clone(), value_at(field, column, row).map_err(at)?);
            }
        }
    }
    let is_ours = fields.len() == 3 && fields.iter().map(|field| field.name().as_str()).eq(["role", "content", WHOLE]);
    match message.shift_remove(WHOLE) {
        Some(Value::String(whole)) if is_ours => {
            let Value::Object(whole) = parse(WHOLE, &whole).map_err(at)? else { return Err(at("json: expected an object".to_string())) };
            let whole = self::message(name, index, whole)?;
            let same = |field: &str, text: &str| message.get(field).and_then(Value::as_str) == Some(text);
            if !same("role", &whole.role) || !same("content", &whole.content) {
                return Err(at(
                    "expected role and content as in its field json, found others; leave json out where they change".to_string()
                ));
            }
            Ok(whole)
        }
        other => {
            message.extend(other.map(|other| (WHOLE.to_string(), other)));
            self::message(name, index, message)
        }
    }
}

/// A message of its fields, with ShareGPT's names of fields and speakers replaced.
pub(super) fn message(name: &str, index: usize, mut fields: model::Fields) -> Result<Message, String> {
    let at = |problem: String| format!("{name}: message {index}: {problem}");
    let has = |field: &str| fields.get(field).is_some_and(|value| !value.is_null());
    let is_named_from = !has("role") && has("from");
    let (role, content) = if is_named_from { ("from", "value") } else { ("role", "content") };
    if is_named_from {
        fields.shift_remove("role");
        fields.shift_remove("content");
    }
    let rename = |(field, value): (String, Value)| {
        if field == role {
            speaker(value, is_named_from)
        } else if field == content {
            Ok(("content".to_string(), value))
        } else {
            Ok((field, value))
        }
    };
    let fields = fields.into_iter().map(rename).collect::<Result<model::Fields, String>>().map_err(at)?;
    Message::from_fields(fields).map_err(at)
}

/// The field of a speaker, with the name that chat templates know.
fn speaker(value: Value, must_be_known: bool) -> Result<(String, Value), String> {
    match value.as_str().and_then(role_of) {
        Some(role) => Ok(("role".to_string(), Value::from(role))),
        None if must_be_known => {
            let found = if value.is_string() { value.to_string() } else { kind(&value).to_string() };
            Err(format!("expected it to be from human, user, gpt, assistant or system, found {found}"))
        }
        None => Ok(("role".to_string(), value)),
    }
}

/// The role for a usual name of a speaker.
fn role_of(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "human" | "user" | "prompter" => Some("user"),
        "gpt" | "assistant" | "chatgpt" | "model" | "bot" => Some("assistant"),
        "system" => Some("system"),
        "tool" | "observation" => Some("tool"),
        _ => None,
    }
}

/// The messages of a JSON value: a list of messages, or one message.
pub(super) fn messages_of(name: &str, value: Value) -> Result<Vec<Message>, String> {
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    let message = |(index, value): (usize, Value)| match value {
        Value::Object(fields) => message(name, index, fields),
        other => Err(format!("{name}: message {index}: expected a role and a content, found {}", kind(&other))),
    };
    list.into_iter().enumerate().map(message).collect()
}

/// The text of a row as a JSON value; `None` for null.
pub(super) fn json_at(name: &str, array: &ArrayRef, row: usize) -> Result<Option<Value>, String> {
    text_at(array, row).map(|text| parse(name, &text)).transpose()
}

/// The answer of a row with further fields: the JSON of the column `name`_json, checked against the
/// answer's text.
///
/// # Errors
/// It is no message of the assistant, or of another text.
pub(crate) fn answer_at(name: &str, text: &str, batch: &RecordBatch, row: usize) -> Result<Option<Message>, String> {
    let column = answer_column(name);
    let Some(array) = batch.column_by_name(&column) else { return Ok(None) };
    let Some(value) = json_at(&column, array, row)? else { return Ok(None) };
    let answer = match messages_of(&column, value)?.as_slice() {
        [only] if only.role == "assistant" => only.clone(),
        _ => return Err(format!("{column}: expected one message of the assistant, found others")),
    };
    if answer.content == text {
        Ok(Some(answer))
    } else {
        Err(format!("{column}: expected the text of {name}, found another; leave the column out where the text changes"))
    }
}

/// The column beside an answer's text with all fields of its message.
pub(crate) fn answer_column(name: &str) -> String {
    format!("{name}_json")
}
