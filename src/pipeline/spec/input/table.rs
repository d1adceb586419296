//! An outside table: files of rows and their layout.
//!
//! Knows the keys, not how files are read.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::malformed::Malformed;
use super::super::one_or_several::{self, OneOrSeveral};
use super::split::Split;
use crate::pipeline::address::shown;
use crate::pipeline::position::{At, Name};

/// Files of rows, and their layout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableFile {
    /// The paths, from the folder of the file.
    pub table: Paths,
    /// The files' format.
    pub format: Format,
    /// The separator of a csv file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether the first row of a csv file has the names of the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// The types of some columns. For a csv file without a header: all columns, in order.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
    /// The layout of prompts and responses in the columns.
    pub dataset_format: DatasetFormat,
    /// Renamed columns: each new name with the name in the file.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub map: IndexMap<String, String>,
    /// The reaction to rows that cannot be used.
    #[serde(skip_serializing_if = "Malformed::is_default")]
    pub malformed: Malformed,
    /// The part of the rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// The memory limit for the rows, in bytes. Never part of a fingerprint.
    #[serde(skip_serializing_if = "is_default_max_bytes")]
    pub max_bytes: u64,
}

/// The default of [`TableFile::max_bytes`]: 4 GiB.
const DEFAULT_MAX_BYTES: u64 = 4 << 30;

fn is_default_max_bytes(bytes: &u64) -> bool {
    *bytes == DEFAULT_MAX_BYTES
}

/// One path or several, each of a file or with `*`, `?` and `[…]` of several files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Paths(pub Vec<Name>);

/// The layout of prompts and responses in the columns of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// The columns decide, for tables of prompts or preferences. They must fit exactly one of the
    /// other layouts.
    #[default]
    Auto,
    /// TRL's: `prompt` and `completion`; `chosen` and `rejected`, with or without `prompt`; or
    /// `messages`. Texts or lists of messages.
    Trl,
    /// `conversations` of `from` and `value`; for preferences also `chosen` and `rejected`.
    Sharegpt,
    /// `instruction`, `input` and `output`; for preferences also `chosen` and `rejected`. The
    /// prompt is the instruction, then, if there is an input, an empty line and the input.
    Alpaca,
    /// `question`, maybe `system`, `chosen` and `rejected` as texts. They become messages.
    Orca,
    /// `prompt`, `chosen` and `rejected` as lists of messages, `score_chosen` and `score_rejected`.
    Ultrafeedback,
    /// `chosen` and `rejected` as lists of messages with `chosen_score` and `rejected_score`;
    /// `context_messages`; or `prompt`, `responses` and `rewards`, for a pair of the highest and
    /// the lowest reward.
    Rlhflow,
    /// The layout of optune: `prompt` (text) or `messages`, and `response`, `chosen`, `rejected` as
    /// texts.
    Rows,
}

impl DatasetFormat {
    /// The word in the pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Trl => "trl",
            Self::Sharegpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::Orca => "orca",
            Self::Ultrafeedback => "ultrafeedback",
            Self::Rlhflow => "rlhflow",
            Self::Rows => "rows",
        }
    }
}

/// The format of a file of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Values with a separator between them, one row a line.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// An array of JSON objects, or an object with one such array.
    Json,
    /// Arrow IPC, file or stream: the format of Feather and Hugging Face datasets.
    Arrow,
}

/// Column names, each with its type; in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Columns(pub IndexMap<String, ColumnType>);

/// The type of a column.
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
    /// Any JSON values, kept as their text.
    Json,
    /// None: the column is left out.
    Skip,
}

/// The keys of a table as written.
pub(super) struct Written {
    pub table: Paths,
    pub format: Option<Format>,
    pub delimiter: Option<At<String>>,
    pub header: Option<bool>,
    pub columns: Option<Columns>,
    pub dataset_format: Option<DatasetFormat>,
    pub map: Option<IndexMap<String, String>>,
    pub malformed: Option<Malformed>,
    pub split: Option<Split>,
    pub max_bytes: Option<u64>,
}

/// A table with the format found and the csv settings filled in.
pub(super) fn table_file(written: Written) -> Result<TableFile, String> {
    let Written { table, format, delimiter, header, columns, dataset_format, map, malformed, split, max_bytes } = written;
    let format = format.map_or_else(|| format_of(&table), Ok)?;
    let dataset_format = dataset_format.unwrap_or_default();
    let map = map.unwrap_or_default();
    let malformed = malformed.unwrap_or_default();
    let max_bytes = max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
    if format != Format::Csv {
        if delimiter.is_some() || header.is_some() {
            return Err("`delimiter` and `header` are for csv files".to_string());
        }
        let columns = columns.unwrap_or_default();
        return Ok(TableFile { table, format, delimiter: None, header: None, columns, dataset_format, map, malformed, split, max_bytes });
    }
    let delimiter = match delimiter {
        None if table.0.iter().all(|path| uncompressed(&path.value).ends_with(".tsv")) => '\t',
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
    Ok(TableFile {
        table,
        format,
        delimiter: Some(delimiter),
        header: Some(header),
        columns,
        dataset_format,
        map,
        malformed,
        split,
        max_bytes,
    })
}

/// The path in lower case, without `.gz` or `.zst` at its end.
fn uncompressed(path: &str) -> String {
    let path = path.to_ascii_lowercase();
    path.strip_suffix(".gz").or_else(|| path.strip_suffix(".zst")).map_or(path.clone(), str::to_string)
}

/// The format by the extensions of the paths.
fn format_of(table: &Paths) -> Result<Format, String> {
    let mut found: Option<(Format, String)> = None;
    for path in &table.0 {
        // Of an address, without its query.
        let path = shown(&path.value);
        let inner = uncompressed(&path);
        let is_compressed = inner.len() < path.len();
        let extension = inner.rsplit_once('.').map(|(_, extension)| extension.to_string());
        let format = match extension.as_deref() {
            Some("parquet" | "arrow" | "feather" | "ipc") if is_compressed => {
                return Err(format!("`{path}` is compressed as a whole; unpack it first"));
            }
            Some("parquet") => Format::Parquet,
            Some("csv" | "tsv") => Format::Csv,
            Some("jsonl" | "ndjson") => Format::Jsonl,
            Some("json") => Format::Json,
            Some("arrow" | "feather" | "ipc") => Format::Arrow,
            Some("bz2" | "xz" | "zip" | "7z" | "lz4") => return Err(format!("`{path}` is compressed; unpack it first")),
            _ => {
                let formats = "`parquet`, `jsonl`, `json`, `csv` or `arrow`";
                return Err(format!("cannot tell the format of `{path}` from its extension; add `format:` with {formats}"));
            }
        };
        match &found {
            Some((other, first)) if *other != format => {
                return Err(format!("`{first}` and `{path}` are of two formats; give each an input of its own"));
            }
            _ => found = Some((format, path)),
        }
    }
    found.map(|(format, _)| format).ok_or_else(|| "expected a path or a list of paths, found an empty list".to_string())
}

impl OneOrSeveral for Paths {
    const EXPECTED: &'static str = "a path or a list of paths";
}

impl Serialize for Paths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        one_or_several::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_several::deserialize::<Self, D>(deserializer).map(Self)
    }
}

impl JsonSchema for Paths {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Paths".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_or_several::schema()
    }
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
