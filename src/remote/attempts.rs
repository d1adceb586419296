//! Attempts of a download: temporary failures are repeated, with growing waits.
//!
//! Knows nothing of what is attempted.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::error::RemoteError;
use super::stop::{Stopped, pause};

/// The time limit of a connection, an answer or a piece of a file.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts without any progress, after the first.
pub(super) const RETRIES: usize = 5;
/// The wait before the second attempt.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Why an attempt failed.
pub(super) enum Trouble {
    /// For now.
    Again(String),
    /// For good.
    Final(RemoteError),
}

/// Repeats an attempt while its failures are temporary. `gave_up` makes the error of the last
/// failure.
pub(super) fn persist<T>(
    retries: usize,
    stopped: Stopped,
    gave_up: &dyn Fn(String) -> RemoteError,
    attempt: &mut dyn FnMut() -> Result<T, Trouble>,
) -> Result<T, RemoteError> {
    let mut waits = ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_times(retries).with_jitter().build();
    loop {
        if stopped() {
            return Err(RemoteError::Stopped);
        }
        match attempt() {
            Ok(found) => return Ok(found),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Again(problem)) => match waits.next() {
                Some(wait) => pause(wait, stopped)?,
                None => return Err(gave_up(problem)),
            },
        }
    }
}

/// Repeats `transfer` until it succeeds. Attempts are counted anew whenever `have`, the number of
/// bytes so far, has grown.
pub(super) fn until_whole<T>(
    stopped: Stopped,
    gave_up: &dyn Fn(String) -> RemoteError,
    have: &dyn Fn() -> u64,
    transfer: &mut dyn FnMut() -> Result<T, Trouble>,
) -> Result<T, RemoteError> {
    loop {
        let before = have();
        let result = persist(RETRIES, stopped, gave_up, &mut || match transfer() {
            Err(Trouble::Again(_)) if have() > before => Ok(None),
            result => result.map(Some),
        })?;
        if let Some(found) = result {
            return Ok(found);
        }
    }
}
