//! Stopping: how a caller asks for it, and waits with an early end.

use std::time::{Duration, Instant};

use super::error::RemoteError;

/// Asks whether the run was asked to stop; called from several threads.
pub type Stopped<'a> = &'a (dyn Fn() -> bool + Sync);

/// The interval at which a waiting request checks for the end of the run.
pub(super) const LOOK: Duration = Duration::from_millis(25);

/// Waits, unless the run is asked to stop.
pub(super) fn pause(wait: Duration, stopped: Stopped) -> Result<(), RemoteError> {
    let start = Instant::now();
    loop {
        if stopped() {
            return Err(RemoteError::Stopped);
        }
        match wait.checked_sub(start.elapsed()) {
            Some(left) if !left.is_zero() => std::thread::sleep(left.min(LOOK)),
            _ => return Ok(()),
        }
    }
}
