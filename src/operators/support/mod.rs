//! Shared parts of the operators: context, errors, progress, checks before a run, memory, randomness, and the training job.
//!
//! Knows the rule of no single operator.

pub(in crate::operators) mod comparisons;
mod context;
pub(super) mod epochs;
mod error;
pub mod lora;
pub(in crate::operators) mod memory_budget;
pub(in crate::operators) mod pair_tokens;
mod preflight;
mod progress;
pub(in crate::operators) mod reward_tree;
pub mod rng;
pub(super) mod rows;
pub mod tensors;
pub(in crate::operators) mod training_job;

pub use context::{Context, device_choice, recipe, training_recipe};
pub use error::OperatorError;
pub use preflight::{DatasetFormats, check};
pub use progress::{Progress, Silent};
