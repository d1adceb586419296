//! What a pipeline reads from outside: tables, models and rewards.
//!
//! Knows how a user names them, not how they are opened.

mod reward;
mod reward_keys;
mod server;
mod table;

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::pipeline::position::{At, Name};

pub use reward::{Component, Reward, RewardSource};
pub use server::{RewardProtocol, Server};
pub use table::{ColumnType, Columns, DatasetFormat, Format, Paths, TableFile};

/// One entry of `inputs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "InputFields")]
pub enum Input {
    /// Files of rows.
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

/// One entry of `inputs`: exactly one of `table`, `model` and `reward`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Input", extend("minProperties" = 1))]
pub(super) struct InputFields {
    /// The path of a file of rows, from the working directory; one with `*`, `?` or `[…]` for all files that fit; or a list of such
    /// paths. Several files are read in the order of their paths and must have the same columns.
    table: Option<Paths>,
    /// The table's format; by the extension when left out.
    format: Option<Format>,
    /// What separates two values of a csv file: a comma when left out, a tab for `.tsv`.
    delimiter: Option<At<String>>,
    /// Whether the first row of a csv file names the columns; true when left out.
    header: Option<bool>,
    /// A csv file's columns: their names in order when there is no header, their types where these are not text.
    columns: Option<Columns>,
    /// How prompts and responses lie in the columns; told by them when left out. What is not one of ours becomes `prompt` or `messages`,
    /// `response`, `chosen`, `rejected`, `chosen_score` and `rejected_score`.
    dataset_format: Option<DatasetFormat>,
    /// Columns to rename before that: ours, each with theirs (`prompt: question`); `theirs.field` is a field of a nested column.
    map: Option<IndexMap<String, String>>,
    /// The most memory that the table's rows may take, in bytes, so that a small file cannot become more than the machine has; 4 GiB when
    /// left out.
    #[schemars(range(min = 1))]
    max_bytes: Option<u64>,
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
            ("dataset_format", fields.dataset_format.is_some()),
            ("map", fields.map.is_some()),
            ("max_bytes", fields.max_bytes.is_some()),
        ];
        let stray = about_tables.into_iter().find(|(_, given)| *given).map(|(key, _)| key);
        match (fields.table, fields.model, fields.reward, stray) {
            (Some(table), None, None, _) => table::table_file(table::Written {
                table,
                format: fields.format,
                delimiter: fields.delimiter,
                header: fields.header,
                columns: fields.columns,
                dataset_format: fields.dataset_format,
                map: fields.map,
                max_bytes: fields.max_bytes,
            }),
            (None, Some(model), None, None) => Ok(Self::Model { model }),
            (None, None, Some(reward), None) => Ok(Self::Reward { reward }),
            (None, Some(_), None, Some(key)) => Err(format!("`{key}` is for tables; a model has none")),
            (None, None, Some(_), Some(key)) => Err(format!("`{key}` is for tables; a reward has none")),
            (None, None, None, _) => Err("expected one of `table`, `model` and `reward`, found none".to_string()),
            _ => Err("expected one of `table`, `model` and `reward`, found more; give each an input of its own".to_string()),
        }
    }
}
