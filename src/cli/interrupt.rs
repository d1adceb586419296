//! Ctrl-C and SIGTERM: the first one asks the work to end, the second one ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::CliError;
use super::terminal::tell;

/// Set by the first Ctrl-C. The second ends the process and loses at most the part in hand.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Whether the work was asked to end.
pub(super) fn is_stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// Listens from now on. `answer` is told at the first Ctrl-C.
pub(super) fn listen(answer: &'static str) -> Result<(), CliError> {
    ctrlc::set_handler(move || {
        if STOPPED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        tell(answer);
    })
    .map_err(|error| CliError::Failed(format!("cannot listen for Ctrl-C: {error}")))
}
