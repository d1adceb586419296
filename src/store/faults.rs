//! Stops the store between two steps, so that tests can see what a kill leaves behind.
//!
//! Every write, fsync, rename, link and removal of the store is one step. Costs a thread-local read a step when not in use.

use std::cell::Cell;
use std::io;

thread_local! {
    static STEPS_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `work` on this thread; after `steps` steps every further one fails, as if the process were dead.
///
/// Returns what `work` returned and whether it was stopped.
pub fn stop_after<R>(steps: u64, work: impl FnOnce() -> R) -> (R, bool) {
    STEPS_LEFT.set(Some(steps));
    let result = work();
    // At 0 steps left nothing has failed yet; the first failure leaves a mark of u64::MAX.
    let stopped = STEPS_LEFT.replace(None) == Some(u64::MAX);
    (result, stopped)
}

/// One step: an error when the store is to be stopped here.
pub(super) fn step() -> io::Result<()> {
    match STEPS_LEFT.get() {
        None => Ok(()),
        Some(0 | u64::MAX) => {
            STEPS_LEFT.set(Some(u64::MAX));
            Err(io::Error::other("stopped by a test"))
        }
        Some(left) => {
            STEPS_LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}
