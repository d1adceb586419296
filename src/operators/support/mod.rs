//! What operators share: their context, errors and progress, checks before a run, memory, randomness, and the training job.
//!
//! Knows no single operator's rule.

pub(in crate::operators) mod comparisons;
mod context;
mod error;
pub mod lora;
pub(in crate::operators) mod memory_budget;
pub(in crate::operators) mod pair_tokens;
mod preflight;
mod progress;
pub(in crate::operators) mod reward_tree;
pub mod rng;
pub mod tensors;
pub(in crate::operators) mod training_job;

pub use context::{Context, device_choice, recipe, training_recipe};
pub use error::OperatorError;
pub use preflight::{DatasetFormats, check};
pub use progress::{Progress, Silent};
