//! Columns of conversations in every layout as our own: lists and single messages with any fields,
//! ShareGPT's names, JSON texts.
//!
//! Knows the names of such columns. Knows no dataset format.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use indexmap::IndexMap;
use serde_json::Value;

use super::columns::ColumnContent;
use super::rename::batch_of;
use super::{Normalized, without_rows};
use crate::import::conversations::{Conversations, json_at, may_hold_messages, messages_at, messages_of, with_whole};
use crate::import::formats::is_json;
use crate::import::variables;
use crate::pipeline::spec::input::DatasetFormat;

/// The columns that hold conversations and nothing else: a text there is JSON.
const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "context_messages"];

/// The columns that may hold conversations or texts.
const EITHER: [&str; 4] = ["prompt", "completion", "chosen", "rejected"];

/// The columns that hold conversations in a table of the `given` format. `conversations` are
/// ShareGPT's alone.
fn names(given: DatasetFormat) -> impl Iterator<Item = &'static str> {
    let is_sharegpt = matches!(given, DatasetFormat::Auto | DatasetFormat::Sharegpt);
    CONVERSATIONS.into_iter().chain(EITHER).filter(move |name| is_sharegpt || *name != "conversations")
}

/// The columns whose values are kept as they are written, under the names of the files; `map` has
/// our names with theirs.
pub(in crate::import) fn message_columns(given: DatasetFormat, map: &IndexMap<String, String>) -> BTreeSet<String> {
    let theirs = |ours: &str| map.get(ours).cloned().into_iter().chain([ours.to_string()]).collect::<Vec<_>>();
    names(given).chain(variables::COLUMNS).flat_map(theirs).collect()
}

/// The batch with every column of conversations as lists of role and content, and the variables of
/// chat templates as JSON texts. Rows whose value is no conversation are malformed.
///
/// # Errors
/// Arrow refuses the columns.
pub(in crate::import) fn with_conversations(given: DatasetFormat, batch: &RecordBatch) -> Result<Normalized, String> {
    let mut malformed = BTreeMap::new();
    let mut fields = batch.schema().fields().to_vec();
    let mut columns = batch.columns().to_vec();
    for (field, array) in fields.iter_mut().zip(&mut columns) {
        let name = field.name().as_str();
        let column = if variables::COLUMNS.contains(&name) {
            Some(variables::as_json(field, array, &mut malformed))
        } else if names(given).any(|known| known == name) {
            conversations(field, array, &mut malformed)
        } else {
            None
        };
        if let Some(column) = column {
            *field = Arc::new(Field::new(field.name(), column.data_type().clone(), true));
            *array = column;
        }
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows);
    let batch = batch.and_then(|batch| without_rows(&batch, malformed.keys().copied())).map_err(|error| error.to_string())?;
    Ok(Normalized { batch, malformed: malformed.into_iter().collect() })
}

/// The column as conversations, or as the texts in its JSON; `None` for another column. Null for
/// malformed rows, which are noted with their problem.
fn conversations(field: &Field, array: &ArrayRef, malformed: &mut BTreeMap<usize, String>) -> Option<ArrayRef> {
    let name = field.name();
    let is_text = ColumnContent::from_type(array.data_type()) == ColumnContent::Text;
    if is_text && (is_json(field) || CONVERSATIONS.contains(&name.as_str())) {
        return from_json(name, array, malformed);
    }
    if !may_hold_messages(array.data_type()) {
        return None;
    }
    let mut conversations = Conversations::default();
    for row in 0..array.len() {
        let messages = messages_at(name, array, row).unwrap_or_else(|problem| {
            malformed.entry(row).or_insert(problem);
            None
        });
        conversations.append(messages.as_deref());
    }
    Some(conversations.finish())
}

/// JSON texts as conversations, or as texts if all are. `None` for other values in a column that
/// may hold texts: they are no messages.
fn from_json(name: &str, array: &ArrayRef, malformed: &mut BTreeMap<usize, String>) -> Option<ArrayRef> {
    if EITHER.contains(&name) {
        let values = || (0..array.len()).filter_map(|row| json_at(name, array, row).ok()?);
        if values().any(|value| !value.is_string() && !value.is_null()) && !values().any(|value| may_be_messages(&value)) {
            return None;
        }
    }
    let mut note = |row: usize, problem: String| {
        malformed.entry(row).or_insert(problem);
    };
    let mut values = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        values.push(match json_at(name, array, row) {
            Ok(value) => value.filter(|value| !value.is_null()),
            Err(problem) => {
                note(row, problem);
                None
            }
        });
    }
    let may_be_text = EITHER.contains(&name);
    if may_be_text && values.iter().flatten().all(Value::is_string) {
        return Some(Arc::new(values.iter().map(|value| value.as_ref().and_then(Value::as_str)).collect::<StringArray>()));
    }
    let mut conversations = Conversations::default();
    for (row, value) in values.into_iter().enumerate() {
        let messages = value.map(|value| messages_of(name, value)).transpose().unwrap_or_else(|problem| {
            note(row, problem);
            None
        });
        conversations.append(messages.as_deref());
    }
    Some(conversations.finish())
}

/// Whether a JSON value is a message, or a list of messages, by the name of a speaker's field.
fn may_be_messages(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.first().is_some_and(|first| first.is_object() && may_be_messages(first)),
        Value::Object(fields) => fields.contains_key("role") || fields.contains_key("from"),
        _ => false,
    }
}

/// The batches of a table with the same columns: those that only some batches needed are null in
/// the others.
///
/// # Errors
/// Arrow refuses the columns.
pub(in crate::import) fn alike(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, String> {
    let mut types: Vec<(String, DataType)> = Vec::new();
    for batch in &batches {
        for field in batch.schema().fields() {
            match types.iter_mut().find(|(name, _)| name == field.name()) {
                // Of two types of messages, the one with more fields.
                Some((_, found)) if field.data_type().to_string().len() > found.to_string().len() => *found = field.data_type().clone(),
                Some(_) => {}
                None => types.push((field.name().clone(), field.data_type().clone())),
            }
        }
    }
    let is_alike = |batch: &RecordBatch| {
        let schema = batch.schema();
        schema.fields().len() == types.len()
            && schema.fields().iter().zip(&types).all(|(field, (name, data_type))| field.name() == name && field.data_type() == data_type)
    };
    if batches.iter().all(is_alike) {
        return Ok(batches);
    }
    let column = |batch: &RecordBatch, name: &str, data_type: &DataType| match batch.column_by_name(name) {
        Some(array) if array.data_type() == data_type => array.clone(),
        Some(array) => with_whole(array),
        None => new_null_array(data_type, batch.num_rows()),
    };
    let alike =
        |batch: &RecordBatch| batch_of(types.iter().map(|(name, data_type)| (name.clone(), column(batch, name, data_type))).collect());
    batches.iter().map(alike).collect()
}
