//! The variables of a row's chat template: the columns `tools` and `chat_template_kwargs`.
//!
//! Knows their columns and their values. Knows no template.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::FieldRef;
use serde_json::Value;

use super::json_value::{parse, value_at};
use crate::model::{Fields, GIVEN_VARIABLES, kind};

/// A list of tools, as TRL and `apply_chat_template` take them.
const TOOLS: &str = "tools";
/// Further variables by name, as TRL takes them.
const KWARGS: &str = "chat_template_kwargs";

/// Both columns.
pub(super) const COLUMNS: [&str; 2] = [TOOLS, KWARGS];

/// The value of one of the columns: JSON, or a text of JSON. `None` where it says nothing.
fn checked(name: &str, value: Value) -> Result<Option<Value>, String> {
    let value = match value {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => parse(name, &text)?,
        other => other,
    };
    let rename = format!("; rename the column with `map:` if it is something else than the {name} of a chat template");
    match value {
        Value::Null => Ok(None),
        Value::Array(tools) if name == TOOLS => match tools.iter().find(|tool| !tool.is_object()) {
            Some(other) => Err(format!("{name}: expected tools that are objects, found {}{rename}", kind(other))),
            None => Ok(Some(Value::Array(tools))),
        },
        Value::Object(variables) if name == KWARGS => match variables.keys().find(|name| GIVEN_VARIABLES.contains(&name.as_str())) {
            Some(given) => Err(format!("{name}: expected variables of the template, found {given:?}, which every template is given")),
            None if variables.is_empty() => Ok(None),
            None => Ok(Some(Value::Object(variables))),
        },
        other => {
            let expected = if name == TOOLS { "a list of tools" } else { "an object" };
            Err(format!("{name}: expected {expected}, found {}{rename}", kind(&other)))
        }
    }
}

/// The column as JSON texts. Null for rows of another kind, which are noted with their problem.
pub(super) fn as_json(field: &FieldRef, array: &ArrayRef, malformed: &mut BTreeMap<usize, String>) -> ArrayRef {
    let text = |row: usize| match value_at(field, array, row).and_then(|value| checked(field.name(), value)) {
        Ok(value) => value.map(|value| value.to_string()),
        Err(problem) => {
            malformed.entry(row).or_insert(problem);
            None
        }
    };
    Arc::new((0..array.len()).map(text).collect::<StringArray>())
}

/// The variables of the rows of a batch.
pub(super) struct Variables<'a>(Vec<(FieldRef, &'a ArrayRef)>);

impl<'a> Variables<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Self {
        let schema = batch.schema();
        let found = COLUMNS.into_iter().filter_map(|name| {
            let (index, _) = schema.column_with_name(name)?;
            Some((schema.fields()[index].clone(), batch.column(index)))
        });
        Self(found.collect())
    }

    /// The variables of a row by name; `tools` is one of them.
    pub(super) fn at(&self, row: usize) -> Result<Fields, String> {
        let mut variables = Fields::new();
        for (field, array) in &self.0 {
            match checked(field.name(), value_at(field, array, row)?)? {
                Some(Value::Object(more)) => variables.extend(more),
                Some(tools) => drop(variables.insert(TOOLS.to_string(), tools)),
                None => {}
            }
        }
        Ok(variables)
    }
}
