//! Errors of tables. Their texts name the table, the column and the row.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

use super::kind::{TABLE_KEY, TableKind};

/// A batch is not the expected table. Rows count from 0 within the batch.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No table has this name.
    #[error("expected the name of a table (one of {}), found {name:?}", names())]
    UnknownTable {
        /// The name.
        name: String,
    },
    /// The batch lacks a column.
    #[error("table {table}: expected a column {column}, found only {found}")]
    MissingColumn {
        /// The table.
        table: String,
        /// The missing column.
        column: String,
        /// The columns of the batch.
        found: String,
    },
    /// The table has no such column.
    #[error("table {table}: unexpected column {column}; the columns are {expected}")]
    UnexpectedColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The table's columns.
        expected: String,
    },
    /// A column has another type, or allows null where the table does not.
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
    /// Another version of optune, with another schema of this table, wrote the file.
    #[error("table {table}: expected schema version {expected}, found {found}; delete the table's folder and run again to make it anew")]
    SchemaVersion {
        /// The table.
        table: String,
        /// The version of this program.
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
        /// The problem: expected and found.
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
    /// A row is out of the table's order.
    #[error("table {table}, row {row}: expected rows in ascending order, no two alike, found {found} after the same or more")]
    Order {
        /// The table.
        table: String,
        /// The first row that is not greater than the row before it.
        row: usize,
        /// The row's values in the columns of the order, `column = value` with commas.
        found: String,
    },
    /// Arrow refused an operation on the table.
    #[error("table {table}: {source}")]
    Arrow {
        /// The table.
        table: String,
        /// The error of Arrow.
        source: ArrowError,
    },
}

impl TableError {
    /// The problem with one row of `kind`.
    pub(super) fn row(kind: TableKind, row: usize, problem: impl Into<String>) -> Self {
        TableError::Row { table: kind.to_string(), row, problem: problem.into() }
    }
}

/// The table's name in the metadata of `batch`.
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

/// The values of a row in these columns: `column = value` with commas.
pub(super) fn describe_row(kind: TableKind, columns: &[&str], batch: &RecordBatch, row: usize) -> Result<String, TableError> {
    let describe = |name: &&str| {
        let column = batch.column_by_name(name).ok_or_else(|| missing_column(kind.name(), batch, name))?;
        let value = array_value_to_string(column, row).map_err(|source| TableError::Arrow { table: kind.to_string(), source })?;
        Ok(format!("{name} = {value}"))
    };
    Ok(columns.iter().map(describe).collect::<Result<Vec<_>, TableError>>()?.join(", "))
}

fn names() -> String {
    TableKind::ALL.map(TableKind::name).join(", ")
}
