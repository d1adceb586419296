//! Kills, power cuts, full disks, damaged files and concurrent processes. The result is the same
//! bytes, or an error with a remedy.

mod clean;
mod concurrent_runs;
mod damaged_files;
mod flipped_bits;
mod kills;
mod memoized_rows;
mod memory_and_disk_limits;
mod resume;
mod reward_processes;
mod run_crashes;
mod store_crashes;
