//! A cluster by Ballista: its scheduler and executor with one function of ours in them, and a
//! client. The function turns the bytes of a task into the bytes of its answer.
//!
//! ```text
//! client ──task──▶ scheduler ──task──▶ executor: function
//!    ▲                                    │
//!    └────────── answer, Arrow Flight ────┘
//! ```
//!
//! Behind the feature `cluster`. Knows nothing of tasks: neither tables nor models.

#[cfg(feature = "cluster")]
mod client;
#[cfg(feature = "cluster")]
mod error;
#[cfg(feature = "cluster")]
mod executor;
#[cfg(feature = "cluster")]
mod function;
#[cfg(feature = "cluster")]
mod limits;
#[cfg(feature = "cluster")]
mod results_folder;
#[cfg(feature = "cluster")]
mod scheduler;

#[cfg(feature = "cluster")]
pub use client::Client;
#[cfg(feature = "cluster")]
pub use error::ClusterError;
#[cfg(feature = "cluster")]
pub use executor::{Executor, execute};
#[cfg(feature = "cluster")]
pub use function::Work;
#[cfg(feature = "cluster")]
pub use results_folder::ResultsFolder;
#[cfg(feature = "cluster")]
pub use scheduler::serve;

/// Checks that this build can use a cluster.
///
/// # Errors
/// A message: it was built without.
pub fn check() -> Result<(), &'static str> {
    if cfg!(feature = "cluster") { Ok(()) } else { Err("cluster: this build is without it; build with --features cluster") }
}
