//! Token ids between Arrow's list columns and [`TokenLists`], in the same memory.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int32Type};

use super::OperatorError;
use crate::token_lists::TokenLists;

/// The rows of a list column of Int32, in the column's own memory.
///
/// # Errors
/// A null or an empty row, or values that are not Int32.
pub fn token_lists(lists: &ListArray) -> Result<TokenLists, OperatorError> {
    let values = lists
        .values()
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| OperatorError::Input(format!("token_ids: expected a list of Int32, found {}", lists.data_type())))?;
    if lists.null_count() > 0 || values.null_count() > 0 {
        return Err(OperatorError::Input("token_ids: expected no nulls, found some".to_string()));
    }
    Ok(TokenLists::new(values.values().clone(), lists.offsets())?)
}

/// A list column of rows of these `lengths`. `values` has their ids one after the other; the column
/// shares its memory. Rows of length 0 are allowed.
///
/// # Errors
/// When the lengths do not add up to the values.
pub fn list_array(values: ScalarBuffer<i32>, lengths: impl IntoIterator<Item = usize>) -> Result<ArrayRef, OperatorError> {
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let values = Int32Array::new(values, None);
    let field = Arc::new(Field::new_list_field(DataType::Int32, false));
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(values), None)?))
}

/// A list column of `rows` empty lists.
pub fn empty_lists(rows: usize) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(DataType::Int32, false));
    let values: ArrayRef = Arc::new(Int32Array::from(Vec::<i32>::new()));
    Arc::new(ListArray::new(field, OffsetBuffer::new_zeroed(rows), values, None))
}
