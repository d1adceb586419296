//! A file on its way into a cache: its lock, and the bytes of an answer appended to it.
//!
//! Knows nothing of the answer's source.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, header};

use super::attempts::Trouble;
use super::error::RemoteError;
use super::stop::{Stopped, pause};

/// Bytes between two checks for a stop.
const PIECE_BYTES: usize = 1 << 18;
/// The wait between two attempts to get a lock.
const LOCK_WAIT: Duration = Duration::from_millis(200);

/// Waits until no other process holds the lock at `path`.
pub(super) fn lock(path: &Path, stopped: Stopped, failed: &dyn Fn(io::Error) -> RemoteError) -> Result<File, RemoteError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::create(path).map_err(failed)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => pause(LOCK_WAIT, stopped)?,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Appends the rest of an answer to `file`, which has `have` bytes; returns the new number.
/// `observe` receives it after each piece.
pub(super) fn append(
    reader: &mut dyn Read,
    file: &mut File,
    mut have: u64,
    stopped: Stopped,
    failed: &dyn Fn(io::Error) -> Trouble,
    observe: &mut dyn FnMut(u64),
) -> Result<u64, Trouble> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if stopped() {
            return Err(Trouble::Final(RemoteError::Stopped));
        }
        let read = reader.read(&mut piece).map_err(|error| Trouble::Again(format!("cut after {have} bytes: {error}")))?;
        if read == 0 {
            break;
        }
        file.write_all(piece.get(..read).unwrap_or_default()).map_err(failed)?;
        have += read as u64;
        observe(have);
    }
    file.sync_all().map_err(failed)?;
    Ok(have)
}

/// Where the bytes of a partial answer begin: `Content-Range: bytes 100-199/200`.
pub(super) fn starts_at(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
