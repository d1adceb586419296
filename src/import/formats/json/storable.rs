//! JSON columns that Parquet cannot hold, replaced: structs without fields.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, NullArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

/// The array with nulls in place of structs without fields. `{}` becomes such a struct if it is
/// always empty.
fn storable(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    fn is_storable(data_type: &DataType) -> bool {
        match data_type {
            DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_storable(field.data_type())),
            DataType::List(item) => is_storable(item.data_type()),
            _ => true,
        }
    }
    if is_storable(array.data_type()) {
        return Ok(array.clone());
    }
    if let Some(lists) = array.as_list_opt::<i32>() {
        let values = storable(lists.values())?;
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        return Ok(Arc::new(ListArray::try_new(item, lists.offsets().clone(), values, lists.nulls().cloned())?));
    }
    match array.as_struct_opt() {
        Some(fields) if fields.num_columns() > 0 => {
            let columns = fields.columns().iter().map(storable).collect::<Result<Vec<_>, _>>()?;
            let named =
                fields.fields().iter().zip(&columns).map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
            Ok(Arc::new(StructArray::try_new(named.collect(), columns, fields.nulls().cloned())?))
        }
        _ => Ok(Arc::new(NullArray::new(array.len()))),
    }
}

/// The batch with columns for Parquet.
pub(super) fn storable_batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(storable).collect::<Result<Vec<_>, _>>()?;
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields: Vec<Field> =
        fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), field.is_nullable())).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
}
