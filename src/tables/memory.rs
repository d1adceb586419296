//! How much memory batches take. Knows nothing of how much there is.

use arrow::array::{Array, ArrayRef, RecordBatch};

/// The bytes that a batch's rows take, without what else is in the buffers that they lie in.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    let of_column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(column.get_array_memory_size());
    batch.columns().iter().map(of_column).sum()
}
