//! A local web page over runs, live while they go on.
//!
//! ```text
//! browser ─▶ access (token, host) ─▶ server (routes) ─▶ Viewed (queries) ─▶ sql, report, store
//!                                       └─▶ files (HTML, CSS, JavaScript in the program)
//! ```
//! It opens no run for writing: it reads what is committed, with the sessions of `optune sql`.
//! Flags and notes are its only writing; they go into the run's annotations, outside of
//! fingerprints.
//! Answers are JSON of the structures here. The page shows texts as texts, never as markup.
//!
//! Only this machine can connect, with a random token, and the page loads nothing from elsewhere.
//!
//! # The server's library
//! hyper, without a framework: the routes are a dozen, and axum would add a router and ten crates.
//!
//! Knows nothing of tensors, of the terminal, or of how a node runs.

mod access;
mod annotate;
mod difference;
mod error;
mod files;
mod lineage;
mod parameters;
mod progress;
mod prompt;
mod prompts;
mod server;
mod tables;
mod viewed;

pub use error::{ServeError, ViewError};
pub use server::{View, serve};
