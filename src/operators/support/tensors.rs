//! Token ids between Arrow and burn, without a copy on the CPU.
//!
//! An Arrow list column holds its rows' ids back to back in one buffer, which is what [`Sequences`] wants: the buffer itself
//! becomes the tensor's memory, and a tensor's memory becomes the buffer of the next column.

use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int32Type};
use burn::tensor::{AllocationProperty, Bytes, DType, Device, Int, Tensor, TensorData};

use super::OperatorError;
use crate::model::Sequences;

/// The rows of a list column of Int32 as sequences on `device`. On the CPU the tensor is the column's own memory.
///
/// # Errors
/// A null or an empty row, or values that are not Int32.
pub fn sequences(lists: &ListArray, device: &Device) -> Result<Sequences, OperatorError> {
    let offsets = lists.value_offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let values = lists
        .values()
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| OperatorError::Input(format!("token_ids: expected a list of Int32, found {}", lists.data_type())))?;
    if lists.null_count() > 0 || values.null_count() > 0 {
        return Err(OperatorError::Input("token_ids: expected no nulls, found some".to_string()));
    }
    let ids = int_tensor(&values.slice(first as usize, (last - first) as usize), device);
    let lengths = (0..lists.len()).map(|row| lists.value_length(row) as usize).collect();
    Ok(Sequences::new(ids, lengths)?)
}

/// The array's values as a tensor of shape `[values]`, i32.
fn int_tensor(values: &Int32Array, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    let owned = bytes::Bytes::from_owner(ArrowBytes(values.values().inner().clone()));
    let shared = Bytes::from_shared(owned, AllocationProperty::Other);
    Tensor::from_data(TensorData::from_bytes(shared, [count], DType::I32), (device, DType::I32))
}

/// Lets `bytes` keep an Arrow buffer alive.
struct ArrowBytes(Buffer);

impl AsRef<[u8]> for ArrowBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// A list column whose values are the tensor's own memory where that is on the host and not shared. Rows of length 0 are allowed.
///
/// # Errors
/// When the lengths do not add up to the tensor's length.
pub fn list_array(ids: Tensor<1, Int>, lengths: impl IntoIterator<Item = usize>) -> Result<ArrayRef, OperatorError> {
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let count = ids.dims()[0];
    let bytes = ids.into_data().convert_dtype(DType::I32).into_bytes();
    let values = Int32Array::new(int_buffer(bytes, count), None);
    let field = Arc::new(Field::new_list_field(DataType::Int32, false));
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(values), None)?))
}

/// A list column of `rows` empty lists.
pub fn empty_lists(rows: usize) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(DataType::Int32, false));
    let values: ArrayRef = Arc::new(Int32Array::from(Vec::<i32>::new()));
    Arc::new(ListArray::new(field, OffsetBuffer::new_zeroed(rows), values, None))
}

fn int_buffer(bytes: Bytes, count: usize) -> ScalarBuffer<i32> {
    // Nothing is seen half-changed after a panic: the bytes are never written to.
    let bytes = Arc::new(AssertUnwindSafe(bytes));
    let slice: &[u8] = &bytes;
    if slice.as_ptr().align_offset(align_of::<i32>()) != 0 {
        return ScalarBuffer::from(slice.chunks_exact(4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<i32>>());
    }
    let (pointer, length) = (NonNull::from(slice).cast::<u8>(), slice.len());
    // SAFETY: the memory belongs to `bytes`, which the buffer keeps alive and which nothing can write to once it is behind an Arc;
    // pointer and length are those of its slice.
    let buffer = unsafe { Buffer::from_custom_allocation(pointer, length, bytes) };
    ScalarBuffer::new(buffer, 0, count)
}
