//! Columns of a batch by name, and the meaning of a table's columns for the documentation.
//!
//! Knows no table.

use arrow::array::{Array, RecordBatch};

use super::error::{TableError, missing_column, table_of};

/// The meaning of one column. It is no part of the Arrow schema, so files do not contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnMeaning {
    /// The column's name.
    pub name: &'static str,
    /// Its meaning, in Markdown.
    pub meaning: &'static str,
}

/// The column `name` of `batch` as an array of type `A`, without a copy.
///
/// # Errors
/// There is no such column, or its type is another.
pub fn column<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, TableError> {
    let array = batch.column_by_name(name).ok_or_else(|| missing_column(&table_of(batch), batch, name))?;
    array.as_any().downcast_ref::<A>().ok_or_else(|| TableError::ColumnType {
        table: table_of(batch),
        column: name.to_string(),
        expected: std::any::type_name::<A>().rsplit("::").next().unwrap_or_default().trim_end_matches('>').to_string(),
        found: array.data_type().to_string(),
    })
}
