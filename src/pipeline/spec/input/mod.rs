//! The outside inputs of a pipeline: tables, models and rewards.
//!
//! Knows their keys, not how they are opened.

mod process;
mod reward;
mod reward_keys;
mod server;
mod split;
mod table;

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::malformed::Malformed;
use crate::pipeline::position::{At, Name};

pub use process::{Module, Process, Program, RowFormat, split_function};
pub use reward::{Component, Reward, RewardSource};
pub use server::{RewardProtocol, Server};
pub use split::{Part, Split};
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
    /// A reward for responses.
    Reward {
        /// The source or sources.
        reward: Reward,
    },
}

/// One entry of `inputs`: exactly one of `table`, `model` and `reward`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Input", extend("minProperties" = 1))]
pub(super) struct InputFields {
    /// The path of a file of rows, from the folder of this file; a pattern with `*`, `?` or `[…]`
    /// for all matching files; or a list of such paths. Several files are read in the order of
    /// their paths. Their columns are joined by name: what a file lacks is null there, and types
    /// are widened where no value changes. Text files may end in `.gz` or `.zst`. A path may also
    /// be an address: `hf://datasets/ORG/NAME@REVISION/FILE` for a file or a pattern of a dataset
    /// on the Hugging Face hub, `https://…` for one file, or `s3://BUCKET/KEY` for an object or a
    /// pattern.
    table: Option<Paths>,
    /// The file format. By default the extension decides.
    format: Option<Format>,
    /// The separator of a csv file, one ASCII character. By default a comma, or a tab for `.tsv`.
    delimiter: Option<At<String>>,
    /// Whether the first row of a csv file has the names of the columns. `true` by default.
    header: Option<bool>,
    /// The types of some columns, a mapping from names to types; `skip` leaves a column out. For a
    /// csv file without a header: all columns in order, a list of names or a mapping.
    columns: Option<Columns>,
    /// The layout of prompts and responses in the columns. By default the columns decide. Other
    /// layouts are converted to the columns `prompt` or `messages`, `response`, `chosen`,
    /// `rejected`, `chosen_score` and `rejected_score`.
    dataset_format: Option<DatasetFormat>,
    /// Columns to rename before the conversion, each new name with the old one: `prompt: question`.
    /// `old.field` is a field of a nested column.
    map: Option<IndexMap<String, String>>,
    /// The reaction to rows that cannot be used as prompts, demonstrations or preferences; `stop`
    /// by default. Rows left out are counted by reason in `plan` and in the manifest.
    malformed: Option<Malformed>,
    /// One of two parts of the table, for training or for evaluation. By default all rows.
    split: Option<Split>,
    /// The memory limit for the rows of the table, in bytes, at least 1; 4 GiB by default. It
    /// protects the machine from small files with huge contents.
    #[schemars(range(min = 1))]
    max_bytes: Option<u64>,
    /// A Hugging Face model directory, from the folder of this file.
    model: Option<Name>,
    /// A reward for responses.
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
            ("malformed", fields.malformed.is_some()),
            ("split", fields.split.is_some()),
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
                malformed: fields.malformed,
                split: fields.split,
                max_bytes: fields.max_bytes,
            })
            .map(Self::Table),
            (None, Some(model), None, None) => Ok(Self::Model { model }),
            (None, None, Some(reward), None) => Ok(Self::Reward { reward }),
            (None, Some(_), None, Some(key)) => Err(format!("`{key}` is for tables; a model has none")),
            (None, None, Some(_), Some(key)) => Err(format!("`{key}` is for tables; a reward has none")),
            (None, None, None, _) => Err("expected one of `table`, `model` and `reward`, found none".to_string()),
            _ => Err("expected one of `table`, `model` and `reward`, found more; give each an input of its own".to_string()),
        }
    }
}
