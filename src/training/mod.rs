//! Training a policy, on weighted preference pairs (DPO) or on responses alone (supervised
//! fine-tuning), and a reward model, on comparisons (Bradley–Terry).
//!
//! ```text
//! Responses ─▶ logprobs ─▶ loss ─▶ derivative by logprob ─▶ logprobs, backwards ─▶ gradients ─▶ clip ─▶ optimizer ─▶ policy
//!              (backend)   (numbers)                        (backend, summed over micro-batches)
//! ```
//!
//! A [`Backend`](crate::compute::Backend) computes logprobs and gradients. The same inputs and
//! settings give the same bits on the CPU, on any number of threads, in micro-batches of any size,
//! and across a stop: see [`Trainer::save_state`]. Knows nothing of devices, Arrow, tables,
//! decoding or where its batches come from.

mod broken_weights;
mod checkpoint;
mod error;
mod logprobs;
pub mod loss;
mod optimizer;
mod preference;
mod responses;
mod reward;
mod schedule;
mod supervised;
mod trainer;

pub use broken_weights::broken_parameter;
pub use error::{TrainingError, Unusable};
pub use logprobs::response_logprobs;
pub use optimizer::OptimizerConfig;
pub use preference::{Objective, Pair};
pub use responses::Responses;
pub use reward::{Comparison, rewards};
pub use schedule::{Decay, Schedule};
pub use trainer::{Settings, Skipped, StepMetrics, Trainer};

/// Checks a micro-batch size.
fn check_micro_batch(size: usize) -> Result<(), TrainingError> {
    if size == 0 {
        return Err(TrainingError::Input("micro_batch is 0, expected at least 1".to_string()));
    }
    Ok(())
}
