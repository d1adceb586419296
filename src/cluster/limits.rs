//! The times and sizes of a cluster, the same in all its processes.

use std::time::Duration;

/// An executor without a sign of life for so long is lost. A busy one gives one every 5 seconds.
/// Ballista's own 180 seconds look like a hang.
pub(super) const EXECUTOR_LOST_SECONDS: u64 = 12;
/// How often the scheduler looks for lost executors.
pub(super) const LOOK_FOR_LOST_SECONDS: u64 = 2;
/// The largest message, in bytes: a part's tasks and answers are far below it.
pub(super) const MESSAGE_BYTES: u32 = 1 << 30;
/// How long results stay on an executor: a client takes them at once.
pub(super) const RESULTS_SECONDS: u64 = 120;
/// Results that no scheduler asks to remove go after so long: longer than any part computes.
pub(super) const LOST_RESULTS_SECONDS: u64 = 4 * 3600;
/// How often an executor looks for these.
pub(super) const LOOK_FOR_LOST_RESULTS_SECONDS: u64 = 600;
/// How long the scheduler remembers a finished part.
pub(super) const JOBS_SECONDS: u64 = 300;
/// How long a connection may take.
pub(super) const CONNECT_SECONDS: u64 = 5;
/// A part is asked for again after this time, or after this multiple of the longest so far.
pub(super) const LONGEST_PART: Duration = Duration::from_secs(1800);
/// The multiple.
pub(super) const LONGER: u32 = 4;
/// So long a client goes on without a scheduler before it gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(900);
