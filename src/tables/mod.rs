//! The tables between nodes: fixed Arrow schemas, their keys, and what must hold for every row.
//!
//! ```text
//! prompts ─▶ selection ─▶ responses ─▶ rewards ─▶ pool ─▶ pairs ─▶ training, evaluation     ranking: of a reward model
//!                                                         logprobs: kept beside the runs
//! ```
//!
//! One file a table. A table file lists its columns once, as the fields of a `Row`; the schema, `batch` (rows to Arrow) and `rows`
//! (Arrow to rows) follow from that list, so they cannot disagree. Schemas are never inferred from data. The `iteration` of a table
//! is not a column here: it is the partition folder the store puts the file in.
//!
//! Knows nothing of files, SQL, tensors or the graph.

mod cell;
mod check;
mod conform;
mod error;
mod memory;
mod order;
#[macro_use]
mod table;

pub mod evaluation;
pub mod logprobs;
pub mod pairs;
pub mod pool;
pub mod prompts;
pub mod ranking;
pub mod responses;
pub mod rewards;
pub mod selection;
pub mod training;

use std::fmt;
use std::str::FromStr;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

pub use cell::{FinishReason, Message, Outcome};
pub use error::TableError;
pub(crate) use memory::batch_bytes;
pub use order::InOrder;

/// The key of the table's name in a schema's metadata.
pub const TABLE_KEY: &str = "table";
/// The key of the schema's version in a schema's metadata.
pub const SCHEMA_VERSION_KEY: &str = "schema_version";

/// One of the tables whose schema is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// What is asked: [`prompts`].
    Prompts,
    /// Which prompts get new responses: [`selection`].
    Selection,
    /// What the policy sampled: [`responses`].
    Responses,
    /// What the responses were worth: [`rewards`].
    Rewards,
    /// The newest responses of every prompt, with their rewards: [`pool`].
    Pool,
    /// Chosen and rejected responses: [`pairs`].
    Pairs,
    /// The optimizer's updates: [`training`].
    Training,
    /// The policy against the baseline on held-out prompts: [`evaluation`].
    Evaluation,
    /// A reward model on held-out preferences: [`ranking`].
    Ranking,
    /// What a model makes of token ids: [`logprobs`].
    Logprobs,
}

impl TableKind {
    /// Every kind, in data-flow order.
    pub const ALL: [TableKind; 10] = [
        TableKind::Prompts,
        TableKind::Selection,
        TableKind::Responses,
        TableKind::Rewards,
        TableKind::Pool,
        TableKind::Pairs,
        TableKind::Training,
        TableKind::Evaluation,
        TableKind::Ranking,
        TableKind::Logprobs,
    ];

    /// The name, as in schemas, manifests and error messages.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Prompts => "prompts",
            TableKind::Selection => "selection",
            TableKind::Responses => "responses",
            TableKind::Rewards => "rewards",
            TableKind::Pool => "pool",
            TableKind::Pairs => "pairs",
            TableKind::Training => "training",
            TableKind::Evaluation => "evaluation",
            TableKind::Ranking => "ranking",
            TableKind::Logprobs => "logprobs",
        }
    }

    /// The columns, their types and which may be null. The metadata names the table and the schema's version.
    pub fn schema(self) -> SchemaRef {
        match self {
            TableKind::Prompts => prompts::schema(),
            TableKind::Selection => selection::schema(),
            TableKind::Responses => responses::schema(),
            TableKind::Rewards => rewards::schema(),
            TableKind::Pool => pool::schema(),
            TableKind::Pairs => pairs::schema(),
            TableKind::Training => training::schema(),
            TableKind::Evaluation => evaluation::schema(),
            TableKind::Ranking => ranking::schema(),
            TableKind::Logprobs => logprobs::schema(),
        }
    }

    /// The columns that together name a row, within an iteration.
    pub fn key(self) -> &'static [&'static str] {
        match self {
            TableKind::Prompts => prompts::KEY,
            TableKind::Selection => selection::KEY,
            TableKind::Responses => responses::KEY,
            TableKind::Rewards => rewards::KEY,
            TableKind::Pool => pool::KEY,
            TableKind::Pairs => pairs::KEY,
            TableKind::Training => training::KEY,
            TableKind::Evaluation => evaluation::KEY,
            TableKind::Ranking => ranking::KEY,
            TableKind::Logprobs => logprobs::KEY,
        }
    }

    /// The columns in whose ascending order the table is written; no two rows are alike in them.
    pub fn order(self) -> &'static [&'static str] {
        match self {
            TableKind::Selection => &["rank"],
            other => other.key(),
        }
    }

    /// Checks columns, rows and keys of one batch.
    ///
    /// # Errors
    /// The first thing wrong: another schema, a row that breaks a rule of its table, or a key that is there twice.
    pub fn check(self, batch: &RecordBatch) -> Result<(), TableError> {
        self.check_rows(batch)?;
        self.check_keys([batch])
    }

    /// Checks columns and rows, not keys.
    fn check_rows(self, batch: &RecordBatch) -> Result<(), TableError> {
        check::schema(self, batch)?;
        match self {
            TableKind::Prompts => prompts::check(batch),
            TableKind::Selection => selection::check(batch),
            TableKind::Responses => responses::check(batch),
            TableKind::Rewards => rewards::check(batch),
            TableKind::Pool => pool::check(batch),
            TableKind::Pairs => pairs::check(batch),
            TableKind::Training => training::check(batch),
            TableKind::Evaluation => evaluation::check(batch),
            TableKind::Ranking => ranking::check(batch),
            TableKind::Logprobs => logprobs::check(batch),
        }
    }

    /// Checks that no key is there twice in all of `batches`, the parts of one table in order; rows count on from part to part.
    ///
    /// # Errors
    /// [`TableError::DuplicateKey`], or a key column that is missing.
    pub fn check_keys<'a>(self, batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<(), TableError> {
        check::keys(self, batches)
    }

    /// The same rows with this table's schema: columns picked by name and put in order, types widened (a view to Utf8, UInt64 to
    /// Int64, Float32 to Float64, …). For batches from a query, whose columns may all be null and whose types are the engine's choice.
    ///
    /// # Errors
    /// A column is missing, cannot be widened without loss, or has nulls where the table allows none.
    pub fn conform(self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        conform::conform(self, batch)
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TableKind {
    type Err = TableError;

    fn from_str(name: &str) -> Result<Self, TableError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| TableError::UnknownTable { name: name.to_string() })
    }
}

/// The column `name` of `batch` as an array of type `A`, without a copy.
///
/// # Errors
/// There is no such column, or its type is another.
pub fn column<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, TableError> {
    let array = batch.column_by_name(name).ok_or_else(|| error::missing_column(&error::table_of(batch), batch, name))?;
    array.as_any().downcast_ref::<A>().ok_or_else(|| TableError::ColumnType {
        table: error::table_of(batch),
        column: name.to_string(),
        expected: std::any::type_name::<A>().rsplit("::").next().unwrap_or_default().trim_end_matches('>').to_string(),
        found: array.data_type().to_string(),
    })
}
