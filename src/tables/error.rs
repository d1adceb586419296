//! What can be wrong with a table, in words that name the table, the column and the row.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::{TABLE_KEY, TableKind};

/// Why a batch is not the table it should be. Rows count from 0 within the batch.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A name that is no table's.
    #[error("expected the name of a table (one of {}), found {name:?}", names())]
    UnknownTable {
        /// What was found.
        name: String,
    },
    /// The batch lacks a column.
    #[error("table {table}: expected a column {column}, found only {found}")]
    MissingColumn {
        /// The table.
        table: String,
        /// The column that is missing.
        column: String,
        /// The columns that are there.
        found: String,
    },
    /// The batch has a column that the table has not.
    #[error("table {table}: unexpected column {column}; the columns are {expected}")]
    UnexpectedColumn {
        /// The table.
        table: String,
        /// The column that is too much.
        column: String,
        /// The table's columns.
        expected: String,
    },
    /// A column's type is another, or may be null where the table allows no null.
    #[error("table {table}: column {column} should be {expected}, found {found}")]
    ColumnType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The type of the schema.
        expected: String,
        /// The type of the batch.
        found: String,
    },
    /// The file was written by a version of optune whose table looks different.
    #[error("table {table}: expected schema version {expected}, found {found}; delete the table's folder and run again to make it anew")]
    SchemaVersion {
        /// The table.
        table: String,
        /// The version this program reads and writes.
        expected: String,
        /// The version in the batch's metadata.
        found: String,
    },
    /// A row breaks a rule of its table.
    #[error("table {table}, row {row}: {problem}")]
    Row {
        /// The table.
        table: String,
        /// The row, from 0.
        row: usize,
        /// What was expected and what was found.
        problem: String,
    },
    /// Two rows have the same key.
    #[error("table {table}, row {row}: the key ({key}) is the same as in row {first}")]
    DuplicateKey {
        /// The table.
        table: String,
        /// The second row with the key.
        row: usize,
        /// The first row with the key.
        first: usize,
        /// The key, `column = value` with commas.
        key: String,
    },
    /// A row is not where the table's order has it.
    #[error("table {table}, row {row}: expected rows in ascending order, no two alike, found {found} after the same or more")]
    Order {
        /// The table.
        table: String,
        /// The row that does not come after the row before it.
        row: usize,
        /// What the row has in the columns that are the order, `column = value` with commas.
        found: String,
    },
    /// Arrow could not do something that the table asked of it.
    #[error("table {table}: {source}")]
    Arrow {
        /// The table.
        table: String,
        /// What Arrow says.
        source: ArrowError,
    },
}

impl TableError {
    /// The problem with one row of `kind`.
    pub(super) fn row(kind: TableKind, row: usize, problem: impl Into<String>) -> Self {
        TableError::Row { table: kind.to_string(), row, problem: problem.into() }
    }
}

/// The name of the table that `batch` says it is.
pub(super) fn table_of(batch: &RecordBatch) -> String {
    batch.schema_ref().metadata().get(TABLE_KEY).map_or("(unnamed)", String::as_str).to_string()
}

/// The `batch` of a `table` has no column `column`.
pub(super) fn missing_column(table: &str, batch: &RecordBatch, column: &str) -> TableError {
    TableError::MissingColumn { table: table.to_string(), column: column.to_string(), found: column_names(batch) }
}

/// The names of all columns, for a message.
pub(super) fn column_names(batch: &RecordBatch) -> String {
    let names: Vec<_> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

fn names() -> String {
    TableKind::ALL.map(TableKind::name).join(", ")
}
