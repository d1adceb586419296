//! Runs on a cluster of processes on this machine: the bytes of one process, whatever is killed, and
//! clear words where it cannot be. They need the feature `cluster`.

mod bytes;
mod failures;
mod processes;
#[cfg(feature = "cluster")]
mod refusals;
mod silence;

/// Whether the program can use clusters; if not, says so.
fn is_built() -> bool {
    if !cfg!(feature = "cluster") {
        eprintln!("skipped: clusters: the tests are built without --features cluster");
    }
    cfg!(feature = "cluster")
}
