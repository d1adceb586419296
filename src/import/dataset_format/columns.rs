//! Columns of an external table by their contents: texts, messages, numbers.
//!
//! Knows no dataset format.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};

use super::row::Content;
use crate::import::conversations::{may_hold_messages, messages_at};

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
    /// The content of a batch's column; `None` if there is none, or nulls only.
    pub(super) fn of(batch: &RecordBatch, name: &str) -> Option<Self> {
        non_null_column(batch, name).map(|array| Self::from_type(array.data_type()))
    }

    /// The content of values of this type.
    pub(super) fn from_type(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Dictionary(_, values) => Self::from_type(values),
            DataType::Struct(_) if may_hold_messages(data_type) => Self::Message,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => match Self::from_type(item.data_type()) {
                Self::Message => Self::Conversation,
                Self::Text => Self::Texts,
                _ if item.data_type().is_numeric() => Self::Numbers,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
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
    /// Conversations, or single messages.
    Messages(String, ArrayRef),
}

impl Column {
    pub(super) fn new(name: &str, array: &ArrayRef) -> Result<Self, String> {
        match ColumnContent::from_type(array.data_type()) {
            ColumnContent::Text => Ok(Self::Texts(Texts::new(name, array)?)),
            ColumnContent::Message | ColumnContent::Conversation => Ok(Self::Messages(name.to_string(), array.clone())),
            _ => Err(format!("column {name}: expected text or messages of role and content, found {}", array.data_type())),
        }
    }

    pub(super) fn is_messages(&self) -> bool {
        matches!(self, Self::Messages(..))
    }

    /// The content of a row; `None` for null.
    pub(super) fn content(&self, row: usize) -> Result<Option<Content>, String> {
        match self {
            Self::Texts(texts) => Ok(texts.value(row).map(|text| Content::Text(text.to_string()))),
            Self::Messages(name, array) => Ok(messages_at(name, array, row)?.map(Content::Messages)),
        }
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
