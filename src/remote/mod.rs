//! All HTTP: servers that score, servers that generate, models and tables from the hub and to it,
//! and tables of web servers and of S3.
//!
//! A request is JSON in and JSON out. It is repeated when this may help, and stops waiting when the
//! run is asked to stop. Knows nothing of tables, tensors or the pipeline: callers bring texts and
//! token ids, and decide the meaning of a failure for a row.

mod attempts;
mod chat;
mod client;
mod completions;
mod concurrent;
mod download;
mod error;
mod fleet;
mod hub;
mod network;
mod partial_file;
mod printable;
mod redirect;
mod retry_after;
mod reward;
mod serve;
mod stop;
mod weights;

pub use chat::{Chat, ChatRequest, Reply};
pub use client::{Client, Patience};
pub use completions::{Completion, Completions, Finish, PromptForm, Request, ServerKind};
pub use concurrent::{each, in_order};
pub use download::{Download, Downloads, PinnedFile};
pub use error::RemoteError;
pub use fleet::{Absence, Attempt, Fleet, Place, Questions, Statistics};
pub use hub::{Hub, HubFiles, HubRepo, Pinned, Pushed, Snapshot};
pub use reward::{Protocol, RewardServer, Scorable};
pub use serve::{command, serve, served};
pub use stop::Stopped;
pub use weights::{Admin, Interface, Weights};
