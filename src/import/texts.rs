//! Columns that are read as text: texts as they are, integers and decimals by their digits, JSON
//! scalars as they are written. Any other type is refused.
//!
//! Knows the names of our text columns. Knows no file.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use indexmap::IndexMap;

use super::formats::{is_json, scalar_text};

/// The columns of any dataset format that are texts.
const TEXTS: [&str; 15] = [
    "prompt",
    "prompt_id",
    "response",
    "chosen",
    "rejected",
    "reference_answer",
    "completion",
    "instruction",
    "question",
    "input",
    "output",
    "system",
    "text",
    "messages",
    "tools",
];

/// The columns of any dataset format that may be messages, and the fields of a message that are
/// texts.
const MESSAGES: [&str; 7] = ["messages", "prompt", "completion", "chosen", "rejected", "conversations", "context_messages"];
const MESSAGE_TEXTS: [&str; 4] = ["role", "content", "from", "value"];

/// The columns and fields whose types are never guessed, under the names of the files; `map` has
/// our names with theirs.
pub(crate) fn text_columns(map: &IndexMap<String, String>) -> BTreeSet<String> {
    let theirs = |ours: &str| map.get(ours).cloned().into_iter().chain([ours.to_string()]).collect::<Vec<_>>();
    let mut texts: BTreeSet<String> = TEXTS.iter().flat_map(|name| theirs(name)).collect();
    for column in MESSAGES.iter().flat_map(|name| theirs(name)) {
        for field in MESSAGE_TEXTS {
            texts.extend([format!("{column}.{field}"), format!("{column}[].{field}")]);
        }
    }
    texts
}

/// A value that is no text.
pub(crate) struct NoText {
    /// Its row in the array, from 0.
    pub(crate) row: usize,
    pub(crate) problem: String,
}

/// A column as text.
pub(super) struct Texts {
    /// The texts; null in the rows of `wrong`.
    pub(super) values: StringArray,
    /// The values that are no texts, in the order of their rows.
    pub(super) wrong: Vec<NoText>,
}

impl Texts {
    /// The problem of a row.
    pub(super) fn problem(&self, row: usize) -> Option<&str> {
        let index = self.wrong.binary_search_by_key(&row, |wrong| wrong.row).ok()?;
        self.wrong.get(index).map(|wrong| wrong.problem.as_str())
    }
}

/// A column as text. `field` is its field in a schema.
pub(super) fn texts(field: &Field, array: &ArrayRef) -> Texts {
    let name = field.name();
    let data_type = array.data_type();
    let is_text = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => values.is_string() || values.is_integer(),
        other => other.is_integer() || other.is_decimal(),
    };
    let refused = |found: String| {
        let problem = format!("column {name}: expected text, found {found}");
        let rows = (0..array.len()).filter(|row| array.is_valid(*row));
        Texts { values: StringArray::new_null(array.len()), wrong: rows.map(|row| NoText { row, problem: problem.clone() }).collect() }
    };
    if !is_text {
        let advice = if data_type.is_nested() { "" } else { "; say which text it is by a query, or with `columns:` of type text" };
        return refused(format!("{data_type}{advice}"));
    }
    match cast(array, &DataType::Utf8) {
        Ok(texts) if is_json(field) => from_json(name, texts.as_string()),
        Ok(texts) => Texts { values: texts.as_string::<i32>().clone(), wrong: Vec::new() },
        Err(error) => refused(error.to_string()),
    }
}

/// The texts in a column of JSON.
fn from_json(name: &str, values: &StringArray) -> Texts {
    let mut wrong = Vec::new();
    let text = |(row, json): (usize, Option<&str>)| {
        scalar_text(json?).unwrap_or_else(|problem| {
            wrong.push(NoText { row, problem: format!("column {name}: {problem}") });
            None
        })
    };
    let values = values.iter().enumerate().map(text).collect();
    Texts { values, wrong }
}

/// The column `name` of a batch as text, if there is one.
///
/// # Errors
/// The first value that is no text.
pub(crate) fn text_column(batch: &RecordBatch, name: &str) -> Result<Option<StringArray>, NoText> {
    let Some((index, field)) = batch.schema_ref().column_with_name(name) else { return Ok(None) };
    let Texts { values, wrong } = texts(field, batch.column(index));
    wrong.into_iter().next().map_or(Ok(Some(values)), Err)
}

/// The batch with these columns as texts, as far as it has them, and the values that are no texts.
pub(super) fn with_texts(batch: &RecordBatch, names: &[&str]) -> Result<(RecordBatch, Vec<NoText>), ArrowError> {
    let schema = batch.schema();
    let mut fields: Vec<FieldRef> = schema.fields().to_vec();
    let mut columns = batch.columns().to_vec();
    let mut all_wrong = Vec::new();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        let is_text = *column.data_type() == DataType::Utf8 && !is_json(field);
        if !names.contains(&field.name().as_str()) || is_text || column.data_type().is_null() {
            continue;
        }
        let Texts { values, wrong } = texts(field, column);
        all_wrong.extend(wrong);
        *column = Arc::new(values);
        *field = Arc::new(Field::new(field.name(), DataType::Utf8, true));
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)?;
    Ok((batch, all_wrong))
}

/// Whether a type is that of a message or of a list of messages.
pub(super) fn is_messages(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) => true,
        DataType::List(item) => matches!(item.data_type(), DataType::Struct(_)),
        _ => false,
    }
}
