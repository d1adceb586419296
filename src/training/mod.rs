//! Training a policy, on weighted preference pairs (DPO) or on responses alone (supervised fine-tuning), and a reward model, on
//! comparisons (Bradley–Terry).
//!
//! ```text
//! Responses ─▶ logprobs ─▶ loss ─▶ derivative by logprob ─▶ logprobs, backwards ─▶ gradients ─▶ clip ─▶ optimizer ─▶ policy
//!              (tensors)   (numbers)                        (tensors, summed over micro-batches)
//! ```
//!
//! On the processor the arithmetic is that of kernels of our own, elsewhere burn's with its autodiff, on a GPU in operations of our own. The same inputs and
//! settings give the same bits on the processor, on any number of threads, in micro-batches of any size, and across a stop: see [`Trainer::save_state`].
//! Knows nothing of Arrow, tables, decoding or where its batches come from.

mod checkpoint;
mod error;
#[cfg(feature = "cuda")]
mod gpu;
mod logprobs;
pub mod loss;
mod optimizer;
mod parameters;
mod preference;
mod responses;
mod reward;
mod schedule;
mod supervised;
mod trainer;

pub use error::{TrainingError, Unusable};
pub use logprobs::response_logprobs;
pub use optimizer::Rule;
pub use preference::{Objective, Pair};
pub use responses::Responses;
pub use reward::{Comparison, rewards};
pub use schedule::{Decay, Schedule};
pub use trainer::{Settings, Skipped, StepMetrics, Trainer};
