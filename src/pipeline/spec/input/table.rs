//! A table from outside: a file of rows and how to read it.
//!
//! Knows what a user may write about it, not how files are read.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Input;
use crate::pipeline::position::{At, Name};

/// A file of rows, and how to read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableFile {
    /// The path, from the working directory.
    pub table: Name,
    /// The file's format.
    pub format: Format,
    /// What separates two values of a csv file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether the first row of a csv file names the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// A csv file's columns: their names in order when there is no header, their types where these are not text.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

/// The format of a file of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Values with a delimiter between them, one row a line.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Column names, each with its type; in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Columns(pub IndexMap<String, ColumnType>);

/// The type of a column of a csv file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text.
    #[default]
    Text,
    /// Whole numbers of 64 bits.
    Int64,
    /// Floating-point numbers of 64 bits.
    Float64,
    /// true or false.
    Boolean,
}

/// A table with the format found and the csv settings filled in.
pub(super) fn table_file(
    table: Name,
    format: Option<Format>,
    delimiter: Option<At<String>>,
    header: Option<bool>,
    columns: Option<Columns>,
) -> Result<Input, String> {
    let path = table.value.to_ascii_lowercase();
    let by_extension = match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("parquet") => Some(Format::Parquet),
        Some("csv" | "tsv") => Some(Format::Csv),
        Some("jsonl" | "ndjson") => Some(Format::Jsonl),
        _ => None,
    };
    let format = format.or(by_extension).ok_or_else(|| {
        format!("cannot tell the format of `{}` from its extension; add `format: parquet`, `csv` or `jsonl`", table.value)
    })?;
    if format != Format::Csv {
        if delimiter.is_some() || header.is_some() || columns.is_some() {
            return Err("`delimiter`, `header` and `columns` are for csv files".to_string());
        }
        return Ok(Input::Table(TableFile { table, format, delimiter: None, header: None, columns: Columns::default() }));
    }
    let delimiter = match delimiter {
        None if path.ends_with(".tsv") => '\t',
        None => ',',
        Some(written) => {
            let mut characters = written.value.chars();
            match (characters.next(), characters.next()) {
                (Some(one), None) if one.is_ascii() => one,
                _ => return Err(format!("expected a delimiter of one ASCII character, found \"{}\"", written.value)),
            }
        }
    };
    let columns = columns.unwrap_or_default();
    let header = header.unwrap_or(true);
    if !header && columns.0.is_empty() {
        return Err("a csv file without a header needs `columns`".to_string());
    }
    Ok(Input::Table(TableFile { table, format, delimiter: Some(delimiter), header: Some(header), columns }))
}

impl Columns {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesOrTypes;
        impl<'de> Visitor<'de> for NamesOrTypes {
            type Value = Columns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of column names, or a mapping from names to types")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Columns, A::Error> {
                let mut columns = IndexMap::new();
                while let Some(name) = names.next_element::<String>()? {
                    if columns.insert(name.clone(), ColumnType::Text).is_some() {
                        return Err(A::Error::custom(format!("column `{name}` is named twice")));
                    }
                }
                Ok(Columns(columns))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut types: A) -> Result<Columns, A::Error> {
                let mut columns = IndexMap::new();
                while let Some((name, column)) = types.next_entry()? {
                    columns.insert(name, column);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_any(NamesOrTypes)
    }
}

impl JsonSchema for Columns {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Columns".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let types = generator.subschema_for::<IndexMap<String, ColumnType>>();
        json_schema!({ "anyOf": [{ "type": "array", "items": { "type": "string" } }, types] })
    }
}
