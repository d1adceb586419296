//! How much memory there is, and how much batches take.
//!
//! Knows numbers only; not what is done with them.

use arrow::array::{Array, RecordBatch};

/// Where the system does not say.
const UNKNOWN: usize = 8 << 30;

/// The bytes of memory that this process may have: the machine's, or what its control group allows.
pub(super) fn machine_bytes() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kibibytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
        kibibytes.trim().parse::<usize>().ok()?.checked_mul(1024)
    });
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<usize>().ok());
    [machine, group].into_iter().flatten().min().unwrap_or(UNKNOWN)
}

/// The bytes that a batch's rows take, without what else is in the buffers that they lie in.
pub(super) fn bytes_of(batch: &RecordBatch) -> usize {
    let of_column = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(column.get_array_memory_size());
    batch.columns().iter().map(of_column).sum()
}
