//! All HTTP: servers that score, servers that generate, and models from the hub.
//!
//! A request is JSON in and JSON out. It is repeated when this may help, and stops waiting when the
//! run is asked to stop. Knows nothing of tables, tensors or the pipeline: callers bring texts and
//! token ids, and decide the meaning of a failure for a row.

mod client;
mod completions;
mod concurrent;
mod error;
mod hub;
mod reward;
mod serve;
mod stop;

pub use client::{Client, Patience};
pub use completions::{Completion, Completions, Finish, PromptForm, Request};
pub use concurrent::{each, in_order};
pub use error::RemoteError;
pub use hub::{Hub, HubModel, Pinned, Snapshot};
pub use reward::{Protocol, RewardServer, Scorable};
pub use serve::{command, serve};
pub use stop::Stopped;
