//! Columns of an external table by their contents: texts, messages, numbers.
//!
//! Knows no dataset format.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema};

use super::row::Content;
use crate::model::Message;

/// The content of a column, by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnContent {
    /// One text a row.
    Text,
    /// A list of messages a row.
    Conversation,
    /// One message a row.
    Message,
    /// A list of texts a row.
    Texts,
    /// A list of numbers a row.
    Numbers,
    /// Anything else.
    Other,
}

impl ColumnContent {
    /// The content of values of this type.
    pub(super) fn from_type(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Dictionary(_, values) => Self::from_type(values),
            DataType::Struct(_) if message_fields(data_type).is_some() => Self::Message,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
                match Self::from_type(item.data_type()) {
                    Self::Message => Self::Conversation,
                    Self::Text => Self::Texts,
                    _ if item.data_type().is_numeric() => Self::Numbers,
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

/// The names of a message's fields: role and content, or from and value.
fn message_fields(data_type: &DataType) -> Option<(&'static str, &'static str)> {
    let DataType::Struct(fields) = data_type else { return None };
    let has = |name: &str| fields.iter().any(|field: &FieldRef| field.name() == name);
    [("role", "content"), ("from", "value")].into_iter().find(|(role, content)| has(role) && has(content))
}

/// A column of texts.
pub(super) struct Texts(StringArray);

impl Texts {
    pub(super) fn new(name: &str, array: &ArrayRef) -> Result<Self, String> {
        if ColumnContent::from_type(array.data_type()) != ColumnContent::Text {
            return Err(format!("column {name}: expected text, found {}", array.data_type()));
        }
        Ok(Self(text(array)?))
    }

    pub(super) fn value(&self, row: usize) -> Option<&str> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

fn text(array: &ArrayRef) -> Result<StringArray, String> {
    Ok(cast(array, &DataType::Utf8).map_err(|error| error.to_string())?.as_string::<i32>().clone())
}

/// A column of texts or of messages.
pub(super) enum Column {
    Texts(Texts),
    /// Messages. Row `i` has those from `offsets[i]` to `offsets[i + 1]`.
    Messages {
        name: String,
        valid: Vec<bool>,
        offsets: Vec<usize>,
        roles: StringArray,
        contents: StringArray,
        named_from: bool,
    },
}

impl Column {
    pub(super) fn new(name: &str, array: &ArrayRef) -> Result<Self, String> {
        let expected = || format!("column {name}: expected text or messages of role and content, found {}", array.data_type());
        match ColumnContent::from_type(array.data_type()) {
            ColumnContent::Text => Ok(Self::Texts(Texts::new(name, array)?)),
            ColumnContent::Message => Self::messages(name, array, array, (0..=array.len()).collect()),
            ColumnContent::Conversation => {
                let (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item)) =
                    array.data_type()
                else {
                    return Err(expected());
                };
                let lists = cast(array, &DataType::List(item.clone())).map_err(|error| error.to_string())?;
                let lists = lists.as_list::<i32>();
                Self::messages(name, array, lists.values(), lists.value_offsets().iter().map(|offset| *offset as usize).collect())
            }
            _ => Err(expected()),
        }
    }

    fn messages(name: &str, rows: &ArrayRef, messages: &ArrayRef, offsets: Vec<usize>) -> Result<Self, String> {
        let expected = |found: &DataType| format!("column {name}: expected messages whose fields are texts, found {found}");
        let fields = messages.as_struct_opt().ok_or_else(|| expected(messages.data_type()))?;
        let (role, content) = message_fields(messages.data_type()).ok_or_else(|| expected(messages.data_type()))?;
        let field = |field: &str| match fields.column_by_name(field) {
            Some(array) if ColumnContent::from_type(array.data_type()) == ColumnContent::Text || *array.data_type() == DataType::Null => {
                text(array)
            }
            found => Err(expected(found.map_or(&DataType::Null, |array| array.data_type()))),
        };
        Ok(Self::Messages {
            name: name.to_string(),
            valid: (0..rows.len()).map(|row| rows.is_valid(row)).collect(),
            offsets,
            roles: field(role)?,
            contents: field(content)?,
            named_from: role == "from",
        })
    }

    pub(super) fn is_messages(&self) -> bool {
        matches!(self, Self::Messages { .. })
    }

    /// The content of a row; `None` for null.
    pub(super) fn content(&self, row: usize) -> Result<Option<Content>, String> {
        let (name, valid, offsets, roles, contents, named_from) = match self {
            Self::Texts(texts) => return Ok(texts.value(row).map(|text| Content::Text(text.to_string()))),
            Self::Messages { name, valid, offsets, roles, contents, named_from } => (name, valid, offsets, roles, contents, *named_from),
        };
        let (Some(true), Some(&begin), Some(&end)) = (valid.get(row), offsets.get(row), offsets.get(row + 1)) else { return Ok(None) };
        let message = |(index, at): (usize, usize)| {
            if roles.is_null(at) || contents.is_null(at) {
                return Err(format!("{name}: message {index}: expected a role and a content, found null"));
            }
            let role = roles.value(at);
            let role = if named_from { role_of(role) } else { Some(role) };
            let role = role.ok_or_else(|| {
                let known = "human, user, gpt, assistant or system";
                format!("{name}: message {index}: expected it to be from {known}, found {:?}", roles.value(at))
            })?;
            Ok(Message { role: role.to_string(), content: contents.value(at).to_string() })
        };
        Ok(Some(Content::Messages((begin..end).enumerate().map(message).collect::<Result<_, _>>()?)))
    }
}

/// The role for ShareGPT's name of a speaker.
fn role_of(from: &str) -> Option<&'static str> {
    match from {
        "human" | "user" => Some("user"),
        "gpt" | "assistant" | "chatgpt" => Some("assistant"),
        "system" => Some("system"),
        _ => None,
    }
}

/// The number of items of the list in a row; `None` if the column has no lists.
pub(super) fn length_at(lists: &ArrayRef, row: usize) -> Option<usize> {
    lists
        .as_list_opt::<i32>()
        .map(|lists| lists.value(row).len())
        .or_else(|| lists.as_list_opt::<i64>().map(|lists| lists.value(row).len()))
}

/// The items of the list in a row, as texts.
pub(super) fn texts_at(name: &str, lists: &ArrayRef, row: usize) -> Result<Vec<String>, String> {
    let texts = text(&items(name, lists, row)?)?;
    texts.iter().map(|text| text.map(str::to_string).ok_or_else(|| format!("{name}: expected texts, found null"))).collect()
}

/// The items of the list in a row, as numbers.
pub(super) fn numbers_at(name: &str, lists: &ArrayRef, row: usize) -> Result<Vec<f64>, String> {
    let numbers = cast(&items(name, lists, row)?, &DataType::Float64).map_err(|error| error.to_string())?;
    let numbers = numbers.as_primitive::<Float64Type>();
    let finite = |number: Option<f64>| {
        number.filter(|number| number.is_finite()).ok_or_else(|| format!("{name}: expected finite numbers, found {number:?}"))
    };
    numbers.iter().map(finite).collect()
}

fn items(name: &str, lists: &ArrayRef, row: usize) -> Result<ArrayRef, String> {
    if lists.is_null(row) {
        return Err(format!("{name}: expected a list, found null"));
    }
    let narrow = lists.as_list_opt::<i32>().map(|lists| lists.value(row));
    let items = narrow.or_else(|| lists.as_list_opt::<i64>().map(|lists| lists.value(row)));
    items.ok_or_else(|| format!("column {name}: expected lists, found {}", lists.data_type()))
}

/// The names of all columns, for an error.
pub(super) fn column_names(schema: &Schema) -> String {
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() { "no columns".to_string() } else { names.join(", ") }
}

/// A column, unless it has the type of nulls only.
pub(super) fn non_null_column<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    batch.column_by_name(name).filter(|array| *array.data_type() != DataType::Null)
}
