//! From a query's batch to a table's: columns by name, types widened without loss.
//!
//! Knows types only. The checks of rows are elsewhere.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;

use super::error::{TableError, missing_column};
use super::kind::TableKind;

/// The rows of `batch` with `schema`, the schema of `kind`.
pub(super) fn conform(kind: TableKind, schema: SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
    let columns = schema.fields().iter().map(|field| {
        let found = batch.column_by_name(field.name()).ok_or_else(|| missing_column(kind.name(), batch, field.name()))?;
        let array = widen(found, field.data_type()).ok_or_else(|| mismatch(kind, field, found.data_type().to_string()))?;
        let array = array.map_err(|source| TableError::Arrow { table: format!("{kind}, column {}", field.name()), source })?;
        match (0..array.len()).find(|row| !field.is_nullable() && array.is_null(*row)) {
            Some(row) => Err(TableError::row(kind, row, format!("{}: expected a value, found null", field.name()))),
            None => Ok(array),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(|source| TableError::Arrow { table: kind.to_string(), source })
}

/// The array as `target`, or `None` where the cast could lose something. An integer out of range is
/// an error, not a null.
fn widen(array: &ArrayRef, target: &DataType) -> Option<Result<ArrayRef, ArrowError>> {
    widens(array.data_type(), target).then(|| cast_with_options(array, target, &CastOptions { safe: false, ..CastOptions::default() }))
}

/// Whether every value of `from` within the range of `to` has an equal value in `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    let text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (from, to) {
        _ if from == to => true,
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, values), _) => widens(values, to),
        (DataType::List(from) | DataType::LargeList(from) | DataType::ListView(from), DataType::List(to)) => {
            widens(from.data_type(), to.data_type())
        }
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len()
                && from.iter().zip(to).all(|(from, to)| from.name() == to.name() && widens(from.data_type(), to.data_type()))
        }
        (DataType::Map(from, _), DataType::Map(to, _)) => match (from.data_type(), to.data_type()) {
            (DataType::Struct(from), DataType::Struct(to)) => {
                from.len() == to.len() && from.iter().zip(to).all(|(from, to)| widens(from.data_type(), to.data_type()))
            }
            _ => false,
        },
        _ if text(from) => text(to),
        _ if from.is_integer() => to.is_integer() || *to == DataType::Float64,
        _ => from.is_floating() && *to == DataType::Float64,
    }
}

fn mismatch(kind: TableKind, field: &Field, found: String) -> TableError {
    TableError::ColumnType { table: kind.to_string(), column: field.name().clone(), expected: field.data_type().to_string(), found }
}
