//! From a [`TableKind`] to the table's file: schema, key, order, row checks, and the meaning of its
//! columns.
//!
//! Knows all tables. No table knows this file.

use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::columns::ColumnMeaning;
use super::error::TableError;
use super::kind::TableKind;
use super::{
    annotations, answers, benchmark, evaluation, items, judge_answers, judgments, logprobs, pairs, pool, prompts, ranking, responses,
    rewards, selection, training,
};
use super::{check, conform};

/// `$name` of the module of a kind's table.
macro_rules! of_table {
    ($kind:expr, $name:ident $(($($argument:expr),*))?) => {
        match $kind {
            TableKind::Prompts => prompts::$name $(($($argument),*))?,
            TableKind::Selection => selection::$name $(($($argument),*))?,
            TableKind::Responses => responses::$name $(($($argument),*))?,
            TableKind::Rewards => rewards::$name $(($($argument),*))?,
            TableKind::Pool => pool::$name $(($($argument),*))?,
            TableKind::Pairs => pairs::$name $(($($argument),*))?,
            TableKind::Training => training::$name $(($($argument),*))?,
            TableKind::Evaluation => evaluation::$name $(($($argument),*))?,
            TableKind::Ranking => ranking::$name $(($($argument),*))?,
            TableKind::Answers => answers::$name $(($($argument),*))?,
            TableKind::Items => items::$name $(($($argument),*))?,
            TableKind::Benchmark => benchmark::$name $(($($argument),*))?,
            TableKind::Judgments => judgments::$name $(($($argument),*))?,
            TableKind::JudgeAnswers => judge_answers::$name $(($($argument),*))?,
            TableKind::Logprobs => logprobs::$name $(($($argument),*))?,
            TableKind::Annotations => annotations::$name $(($($argument),*))?,
        }
    };
}

impl TableKind {
    /// The columns with their types and nulls. The metadata has the table's name and the schema's
    /// version.
    pub fn schema(self) -> SchemaRef {
        of_table!(self, schema())
    }

    /// The columns that together name a row, within an iteration.
    pub fn key(self) -> &'static [&'static str] {
        of_table!(self, KEY)
    }

    /// The meaning of one row of the table, in Markdown.
    pub fn row_meaning(self) -> &'static str {
        of_table!(self, ROW_MEANING)
    }

    /// The columns with their meanings, in the order of [`Self::schema`]. The types are in the
    /// schema.
    pub fn columns(self) -> &'static [ColumnMeaning] {
        of_table!(self, COLUMNS)
    }

    /// The table is written in ascending order of these columns. No two rows are equal in them.
    pub fn order(self) -> &'static [&'static str] {
        match self {
            TableKind::Selection => &["rank"],
            other => other.key(),
        }
    }

    /// Checks columns, rows and keys of one batch.
    ///
    /// # Errors
    /// The first fault: another schema, a row that breaks a rule of its table, or a duplicate key.
    pub fn check(self, batch: &RecordBatch) -> Result<(), TableError> {
        self.check_rows(batch)?;
        self.check_keys([batch])
    }

    /// Checks columns and rows, not keys.
    pub(super) fn check_rows(self, batch: &RecordBatch) -> Result<(), TableError> {
        check::schema(self, &self.schema(), batch)?;
        of_table!(self, check(batch))
    }

    /// Checks that no key is in `batches` twice. They are the parts of one table in order; rows
    /// count on from part to part.
    ///
    /// # Errors
    /// [`TableError::DuplicateKey`], or a missing key column.
    pub fn check_keys<'a>(self, batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<(), TableError> {
        check::keys(self, &self.schema(), self.key(), batches)
    }

    /// The same rows with this table's schema. Columns are picked by name and put in order; types
    /// are widened (a view to Utf8, UInt64 to Int64, Float32 to Float64, …). Queries need it: their
    /// columns may all be null, and the engine chooses their types.
    ///
    /// # Errors
    /// A column is missing, cannot be widened without loss, or has a null where the table allows
    /// none.
    pub fn conform(self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        conform::conform(self, self.schema(), batch)
    }
}

impl FromStr for TableKind {
    type Err = TableError;

    fn from_str(name: &str) -> Result<Self, TableError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| TableError::UnknownTable { name: name.to_string() })
    }
}
