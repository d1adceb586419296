//! Columns under other names, by the user's `map`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;

use super::columns::column_names;

/// The batch with its columns renamed. `map` has our names with theirs. `theirs.field` copies the
/// field of a struct column.
///
/// # Errors
/// There is no such column, or another column has the name already.
pub(in crate::import) fn rename(batch: &RecordBatch, map: &IndexMap<String, String>) -> Result<RecordBatch, String> {
    if map.is_empty() {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let mut columns: Vec<(Field, ArrayRef)> =
        schema.fields().iter().map(|field| field.as_ref().clone()).zip(batch.columns().iter().cloned()).collect();
    for (ours, theirs) in map {
        let found = || format!("found {}", column_names(&schema));
        let taken = map.values().any(|theirs| theirs == ours);
        if ours != theirs && !taken && schema.field_with_name(ours).is_ok() {
            return Err(format!("map: {ours} is a column already; map it to another name too"));
        }
        if let Some(index) = schema.fields().iter().position(|field| field.name() == theirs) {
            // `columns` has one entry a field, in order.
            columns[index].0.set_name(ours);
        } else {
            let (field, nested) = field_of(batch, theirs).ok_or_else(|| format!("map: expected a column {theirs}, {}", found()))?;
            columns.push((field.with_name(ours), nested));
        }
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
        columns.into_iter().map(|(field, array)| (field.with_nullable(true), array)).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| error.to_string())
}

/// The field of a struct column that `column.field` names, null where the struct is.
fn field_of(batch: &RecordBatch, path: &str) -> Option<(Field, ArrayRef)> {
    let (column, rest) = path.split_once('.')?;
    let mut field = batch.schema_ref().field_with_name(column).ok()?.clone();
    let mut array = batch.column_by_name(column)?.clone();
    for name in rest.split('.') {
        let parent = array.as_struct_opt()?;
        let child = parent.column_by_name(name)?;
        field = parent.fields().find(name)?.1.as_ref().clone();
        let nulls = NullBuffer::union(parent.nulls(), child.nulls());
        array = make_array(child.to_data().into_builder().nulls(nulls).build().ok()?);
    }
    Some((field, array))
}

/// A batch of these columns, each of which may be null.
pub(super) fn batch_of(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch, String> {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| error.to_string())
}
