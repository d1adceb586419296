//! The memory of Arrow batches. Knows nothing of the machine's memory.

use arrow::array::{Array, ArrayRef, RecordBatch};

/// The bytes of a batch's rows. Other rows in the same buffers do not count.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    let of_column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(column.get_array_memory_size());
    batch.columns().iter().map(of_column).sum()
}
