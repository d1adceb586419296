//! Checks of every table: the schema, the keys, and the conditions that row checks are made of.
//!
//! Knows no table: schema and key are arguments.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::ascent::Ascent;
use super::error::{TableError, column_names, describe_row, missing_column};
use super::kind::{SCHEMA_VERSION_KEY, TABLE_KEY, TableKind};

/// The schema of `kind` with its name and version in the metadata.
pub(super) fn versioned(kind: TableKind, version: u32, fields: Vec<Field>) -> SchemaRef {
    let metadata = [(TABLE_KEY.to_string(), kind.to_string()), (SCHEMA_VERSION_KEY.to_string(), version.to_string())];
    Arc::new(Schema::new_with_metadata(fields, metadata.into()))
}

/// Checks that `batch` has the columns of `expected`, the schema of `kind`: names, order, types and
/// nulls, and the schema version if it states one.
pub(super) fn schema(kind: TableKind, expected: &Schema, batch: &RecordBatch) -> Result<(), TableError> {
    let found = batch.schema_ref();
    if let (Some(ours), Some(theirs)) = (expected.metadata().get(SCHEMA_VERSION_KEY), found.metadata().get(SCHEMA_VERSION_KEY))
        && ours != theirs
    {
        return Err(TableError::SchemaVersion { table: kind.to_string(), expected: ours.clone(), found: theirs.clone() });
    }
    for (index, field) in expected.fields().iter().enumerate() {
        let other = found.fields().get(index).filter(|other| other.name() == field.name()).ok_or_else(|| TableError::MissingColumn {
            table: kind.to_string(),
            column: format!("{} in place {}", field.name(), index + 1),
            found: column_names(batch),
        })?;
        if other.data_type() != field.data_type() || other.is_nullable() != field.is_nullable() {
            let describe = |field: &Field| format!("{}{}", field.data_type(), if field.is_nullable() { " or null" } else { "" });
            let (table, column) = (kind.to_string(), field.name().clone());
            return Err(TableError::ColumnType { table, column, expected: describe(field), found: describe(other) });
        }
    }
    match found.fields().get(expected.fields().len()) {
        Some(extra) => Err(TableError::UnexpectedColumn {
            table: kind.to_string(),
            column: extra.name().clone(),
            expected: expected.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", "),
        }),
        None => Ok(()),
    }
}

/// Checks that no two rows of `batches` have the same `key`.
pub(super) fn keys<'a>(
    kind: TableKind,
    schema: &Schema,
    key: &'static [&'static str],
    batches: impl IntoIterator<Item = &'a RecordBatch>,
) -> Result<(), TableError> {
    let batches: Vec<&RecordBatch> = batches.into_iter().collect();
    let mut ascent = Ascent::new(kind, key);
    for batch in &batches {
        // Most tables are written in the order of their keys. The others need all keys at once.
        if ascent.first_unordered(batch)?.is_some() {
            return distinct_keys(kind, schema, key, &batches);
        }
    }
    Ok(())
}

fn distinct_keys(kind: TableKind, schema: &Schema, key: &[&str], batches: &[&RecordBatch]) -> Result<(), TableError> {
    let failed = |source: ArrowError| TableError::Arrow { table: kind.to_string(), source };
    let sort_field = |name: &&str| schema.field_with_name(name).map(|field| SortField::new(field.data_type().clone()));
    let sort_fields = key.iter().map(sort_field).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let converter = RowConverter::new(sort_fields).map_err(failed)?;
    let mut seen: HashMap<Box<[u8]>, usize> = HashMap::new();
    let mut before = 0;
    for batch in batches {
        let key_columns =
            key.iter().map(|name| batch.column_by_name(name).cloned().ok_or_else(|| missing_column(kind.name(), batch, name)));
        let key_columns: Vec<ArrayRef> = key_columns.collect::<Result<_, _>>()?;
        for (index, value) in converter.convert_columns(&key_columns).map_err(failed)?.iter().enumerate() {
            if let Some(first) = seen.insert(value.as_ref().into(), before + index) {
                let key = describe_row(kind, key, batch, index)?;
                return Err(TableError::DuplicateKey { table: kind.to_string(), row: before + index, first, key });
            }
        }
        before += batch.num_rows();
    }
    Ok(())
}

/// The error of a row, followed by the row's key.
pub(super) fn with_key(kind: TableKind, key: &[&str], batch: &RecordBatch, error: TableError) -> TableError {
    match error {
        TableError::Row { table, row, problem } => match describe_row(kind, key, batch, row) {
            Ok(key) => TableError::Row { table, row, problem: format!("{problem} ({key})") },
            Err(_) => TableError::Row { table, row, problem },
        },
        other => other,
    }
}

/// `value` must be a finite number.
pub(super) fn finite(column: &str, value: f64) -> Result<(), String> {
    if value.is_finite() { Ok(()) } else { Err(format!("{column}: expected a finite number, found {value}")) }
}

/// `value` must be a finite number or null.
pub(super) fn finite_or_null(column: &str, value: Option<f64>) -> Result<(), String> {
    value.map_or(Ok(()), |value| finite(column, value))
}

/// `value` must be `least` or more. NaN is not.
pub(super) fn at_least<T: PartialOrd + Display>(column: &str, least: T, value: T) -> Result<(), String> {
    if value >= least { Ok(()) } else { Err(format!("{column}: expected {least} or more, found {value}")) }
}

/// `text` must not be empty.
pub(super) fn not_empty(column: &str, text: &str) -> Result<(), String> {
    if text.is_empty() { Err(format!("{column}: expected a text, found an empty one")) } else { Ok(()) }
}
