//! The user's types of columns, and the columns that are always text.
//!
//! Knows no format.

use std::collections::BTreeSet;
use std::path::PathBuf;

use arrow::datatypes::{DataType, Field};

use crate::import::error::ImportError;

/// The type of a column, given by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Utf8.
    Text,
    /// Int64.
    Integer,
    /// Float64.
    Number,
    /// Boolean.
    Boolean,
    /// JSON values as text, of Arrow's extension type `arrow.json`.
    Json,
    /// The column is left out.
    Skip,
}

impl ColumnType {
    /// The Arrow type.
    pub(super) fn data_type(self) -> DataType {
        match self {
            ColumnType::Text | ColumnType::Json => DataType::Utf8,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Skip => DataType::Null,
        }
    }

    /// The values that the type has, for an error.
    pub(super) fn expected(self) -> &'static str {
        match self {
            ColumnType::Text => "text",
            ColumnType::Integer => "an integer of 64 bits",
            ColumnType::Number => "a number",
            ColumnType::Boolean => "true or false",
            ColumnType::Json => "JSON",
            ColumnType::Skip => "nothing",
        }
    }
}

/// The types that columns have before their values are known.
#[derive(Clone, Debug, Default)]
pub struct ColumnRules {
    /// The types of some columns. For a csv file without a header: of all columns, in order.
    pub given: Vec<(String, ColumnType)>,
    /// The columns that are texts if all their values are scalars. `a.b` is the field `b` of the
    /// column `a`; `a[].b` that of the items of a column of lists.
    pub texts: BTreeSet<String>,
    /// The columns whose lists of objects, and objects, are kept as JSON: messages and tools, whose
    /// fields differ from one to the next.
    pub messages: BTreeSet<String>,
}

impl ColumnRules {
    /// The type that the user gives a column.
    pub(super) fn given(&self, name: &str) -> Option<ColumnType> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, column_type)| *column_type)
    }

    /// Checks that each given column is among the `found` ones.
    pub(super) fn check_names<'n>(&self, paths: &[PathBuf], found: impl IntoIterator<Item = &'n String>) -> Result<(), ImportError> {
        let found: Vec<&str> = found.into_iter().map(String::as_str).collect();
        match (self.given.iter().find(|(name, _)| !found.contains(&name.as_str())), paths) {
            (Some((name, _)), [first, ..]) => {
                let found = if found.is_empty() { "no columns".to_string() } else { found.join(", ") };
                Err(ImportError::file(first, format!("expected a column {name}, as `columns:` says, found {found}")))
            }
            _ => Ok(()),
        }
    }
}

/// The metadata key of Arrow's extension types, and the name of JSON among them. The type `Json` of
/// Hugging Face datasets is stored so.
const EXTENSION: (&str, &str) = ("ARROW:extension:name", "arrow.json");

/// A nullable column of JSON values as text, of Arrow's extension type `arrow.json`.
pub fn json_field(name: &str) -> Field {
    let (key, json) = EXTENSION;
    Field::new(name, DataType::Utf8, true).with_metadata([(key.to_string(), json.to_string())].into())
}

/// Whether a column has JSON values as text.
pub(in crate::import) fn is_json(field: &Field) -> bool {
    let (key, json) = EXTENSION;
    field.metadata().get(key).is_some_and(|name| name == json)
}
