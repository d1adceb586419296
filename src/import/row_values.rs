//! The values of a table's rows by column, as JSON: for templates and for other programs.
//!
//! Knows no column by name.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;

use super::json_value::value_at;
use crate::model::Fields;

/// Some columns of a batch.
pub struct RowValues<'a>(Vec<(FieldRef, &'a ArrayRef)>);

impl<'a> RowValues<'a> {
    /// The columns of `batch` with a name that `wanted` accepts.
    pub fn new(batch: &'a RecordBatch, wanted: impl Fn(&str) -> bool) -> Self {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| wanted(field.name()));
        Self(columns.map(|(field, column)| (field.clone(), column)).collect())
    }

    /// The values of a row by column. Null is one of them.
    ///
    /// # Errors
    /// A type or a number that JSON has not.
    pub fn at(&self, row: usize) -> Result<Fields, String> {
        self.0.iter().map(|(field, column)| Ok((field.name().clone(), value_at(field, column, row)?))).collect()
    }
}
