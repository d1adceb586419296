//! Checks that hold for every table: the schema, the keys, and the phrases that the row checks are made of.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;

use super::error::{column_names, missing_column};
use super::order::Ascent;
use super::{SCHEMA_VERSION_KEY, TABLE_KEY, TableError, TableKind};

/// The schema of `kind` with its name and version in the metadata.
pub(super) fn versioned(kind: TableKind, version: u32, fields: Vec<Field>) -> SchemaRef {
    let metadata = [(TABLE_KEY.to_string(), kind.to_string()), (SCHEMA_VERSION_KEY.to_string(), version.to_string())];
    Arc::new(Schema::new_with_metadata(fields, metadata.into()))
}

/// Checks that `batch` has the columns of `kind`: names, order, types and nulls, and the schema version if it states one.
pub(super) fn schema(kind: TableKind, batch: &RecordBatch) -> Result<(), TableError> {
    let (expected, found) = (kind.schema(), batch.schema_ref());
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

/// Checks that no key of `kind` is there twice in `batches`.
pub(super) fn keys<'a>(kind: TableKind, batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<(), TableError> {
    let batches: Vec<&RecordBatch> = batches.into_iter().collect();
    let mut ascent = Ascent::new(kind, kind.key());
    for batch in &batches {
        // Tables are written in the order of their keys, but for a few; those need a look at all keys at once.
        if ascent.broken_by(batch)?.is_some() {
            return distinct_keys(kind, &batches);
        }
    }
    Ok(())
}

fn distinct_keys(kind: TableKind, batches: &[&RecordBatch]) -> Result<(), TableError> {
    let failed = |source: ArrowError| TableError::Arrow { table: kind.to_string(), source };
    let schema = kind.schema();
    let sort_fields = kind.key().iter().filter_map(|name| schema.field_with_name(name).ok());
    let converter = RowConverter::new(sort_fields.map(|field| SortField::new(field.data_type().clone())).collect()).map_err(failed)?;
    let mut seen: HashMap<Box<[u8]>, usize> = HashMap::new();
    let mut before = 0;
    for batch in batches {
        let key_columns =
            kind.key().iter().map(|name| batch.column_by_name(name).cloned().ok_or_else(|| missing_column(kind.name(), batch, name)));
        let key_columns: Vec<ArrayRef> = key_columns.collect::<Result<_, _>>()?;
        for (index, key) in converter.convert_columns(&key_columns).map_err(failed)?.iter().enumerate() {
            if let Some(first) = seen.insert(key.as_ref().into(), before + index) {
                let key = described(kind, kind.key(), batch, index)?;
                return Err(TableError::DuplicateKey { table: kind.to_string(), row: before + index, first, key });
            }
        }
        before += batch.num_rows();
    }
    Ok(())
}

/// The error of a row with the row's key behind it.
pub(super) fn with_key(kind: TableKind, batch: &RecordBatch, error: TableError) -> TableError {
    match error {
        TableError::Row { table, row, problem } => match described(kind, kind.key(), batch, row) {
            Ok(key) => TableError::Row { table, row, problem: format!("{problem} ({key})") },
            Err(_) => TableError::Row { table, row, problem },
        },
        other => other,
    }
}

/// What a row has in these columns: `column = value` with commas.
pub(super) fn described(kind: TableKind, columns: &[&str], batch: &RecordBatch, row: usize) -> Result<String, TableError> {
    let one = |name: &&str| {
        let column = batch.column_by_name(name).ok_or_else(|| missing_column(kind.name(), batch, name))?;
        let value = array_value_to_string(column, row).map_err(|source| TableError::Arrow { table: kind.to_string(), source })?;
        Ok(format!("{name} = {value}"))
    };
    Ok(columns.iter().map(one).collect::<Result<Vec<_>, TableError>>()?.join(", "))
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
