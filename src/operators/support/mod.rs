//! Shared parts of the operators: context, errors, progress, checks before a run, memory,
//! randomness, and the training job.
//!
//! Knows the rule of no single operator.

pub(super) mod advance;
pub(super) mod benchmark_items;
pub(super) mod broken_model;
pub(super) mod comparisons;
mod context;
mod device_time;
pub(super) mod epochs;
mod error;
mod executors;
mod flights;
pub(super) mod ignored;
pub(super) mod judging;
pub(super) mod learning_rate;
pub(super) mod logprob_memo;
pub mod lora;
pub(super) mod malformed_rows;
pub(super) mod memory_budget;
mod model_folders;
pub(super) mod model_work;
pub(super) mod pair_tokens;
mod part_server;
mod part_task;
pub(super) mod parted_task;
pub(super) mod parts;
mod preflight;
pub mod program;
mod progress;
mod properties;
pub(super) mod replicas;
pub(super) mod reward_tree;
pub mod rng;
pub(super) mod rows;
pub(super) mod running_spread;
pub mod statistics;
mod staying;
pub(super) mod summary;
pub(super) mod task_model;
pub mod tensors;
pub(super) mod trainable_model;
pub(super) mod training_job;
pub(super) mod turns;

pub use context::{Context, device_choice, devices_choice, recipe, training_recipe};
pub use device_time::DeviceTime;
pub use error::OperatorError;
pub use executors::Executors;
pub use part_server::PartServer;
pub use preflight::{Checked, DatasetFormats, check};
pub use progress::{Progress, Silent};
pub use properties::{lane, version};
pub use staying::staying;
pub use summary::Summary;
