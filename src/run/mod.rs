//! A run: from a checked pipeline to finished outputs in a run folder.
//!
//! ```text
//! graph ─▶ fetch ─▶ recipes ─▶ plan ─▶ execute
//! ```
//!
//! Connects the pipeline, the store, the scheduler and the operators. They know nothing of each
//! other. Knows no terminal.

mod error;
mod execute;
mod executors;
mod fetch;
mod plan;
mod recipes;

pub use error::RunError;
pub use execute::{Failure, Report, execute};
pub use fetch::{Fetched, fetch};
pub use plan::{InputTable, describe, input_tables, must_run, plan};
pub use recipes::{FileHashes, Prepared, prepare};
