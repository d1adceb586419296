//! What a pipeline reads from outside: tables, models and rewards.
//!
//! Knows how a user names them, not how they are opened.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::query::Query;
use crate::pipeline::position::{At, Name};

/// One entry of `inputs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "InputFields")]
pub enum Input {
    /// A file of rows.
    Table(TableFile),
    /// A Hugging Face model directory.
    Model {
        /// The directory.
        model: Name,
    },
    /// A way to reward responses.
    Reward {
        /// Which way.
        reward: Reward,
    },
}

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

/// A way to reward responses: one key, which names the kind, and what that kind needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reward {
    /// A query over `responses`, `prompts` and any other table of the pipeline; gives a `reward` for every response.
    Sql(Query),
}

/// One entry of `inputs`: exactly one of `table`, `model` and `reward`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Input", extend("minProperties" = 1))]
pub(super) struct InputFields {
    /// The path of a file of rows, from the working directory.
    table: Option<Name>,
    /// The table's format; by the file's extension when left out.
    format: Option<Format>,
    /// What separates two values of a csv file: a comma when left out, a tab for `.tsv`.
    delimiter: Option<At<String>>,
    /// Whether the first row of a csv file names the columns; true when left out.
    header: Option<bool>,
    /// A csv file's columns: their names in order when there is no header, their types where these are not text.
    columns: Option<Columns>,
    /// A Hugging Face model directory, from the working directory.
    model: Option<Name>,
    /// A way to reward responses.
    reward: Option<Reward>,
}

impl JsonSchema for Input {
    fn schema_name() -> Cow<'static, str> {
        InputFields::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        InputFields::json_schema(generator)
    }
}

impl TryFrom<InputFields> for Input {
    type Error = String;

    fn try_from(fields: InputFields) -> Result<Self, String> {
        let about_tables = [
            ("format", fields.format.is_some()),
            ("delimiter", fields.delimiter.is_some()),
            ("header", fields.header.is_some()),
            ("columns", fields.columns.is_some()),
        ];
        let stray = about_tables.into_iter().find(|(_, given)| *given).map(|(key, _)| key);
        match (fields.table, fields.model, fields.reward, stray) {
            (Some(table), None, None, _) => table_file(table, fields.format, fields.delimiter, fields.header, fields.columns),
            (None, Some(model), None, None) => Ok(Self::Model { model }),
            (None, None, Some(reward), None) => Ok(Self::Reward { reward }),
            (None, Some(_), None, Some(key)) => Err(format!("`{key}` is for tables; a model has none")),
            (None, None, Some(_), Some(key)) => Err(format!("`{key}` is for tables; a reward has none")),
            (None, None, None, _) => Err("expected one of `table`, `model` and `reward`, found none".to_string()),
            _ => Err("expected one of `table`, `model` and `reward`, found more; give each an input of its own".to_string()),
        }
    }
}

/// A table with the format found and the csv settings filled in.
fn table_file(
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

/// A way to reward responses: one key, which names the kind.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Reward")]
struct RewardFields {
    /// A query, or the path of a file that ends in `.sql`: over `responses`, `prompts` and any other table of the pipeline, it
    /// gives a `reward` for every response.
    sql: Option<Query>,
    // Kinds yet to come, told from typing errors.
    #[schemars(skip)]
    model: Option<IgnoredAny>,
    #[schemars(skip)]
    http: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Reward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKind;
        impl<'de> Visitor<'de> for OneKind {
            type Value = Reward;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward such as `{ sql: reward.sql }`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Reward, A::Error> {
                Err(A::Error::custom("a weighted list of rewards is not supported yet; add them up in one `{ sql: … }`"))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reward, A::Error> {
                let fields = RewardFields::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                if fields.model.is_some() || fields.http.is_some() {
                    let kind = if fields.model.is_some() { "model" } else { "http" };
                    return Err(A::Error::custom(format!("a reward by `{kind}` is not supported yet; use `{{ sql: … }}`")));
                }
                fields.sql.map(Reward::Sql).ok_or_else(|| A::Error::custom("expected a reward such as `{ sql: reward.sql }`, found none"))
            }
        }
        deserializer.deserialize_any(OneKind)
    }
}

impl JsonSchema for Reward {
    fn schema_name() -> Cow<'static, str> {
        RewardFields::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RewardFields::json_schema(generator)
    }
}

impl Reward {
    /// The query.
    pub fn query(&self) -> &Query {
        match self {
            Self::Sql(query) => query,
        }
    }
}
