//! Sampling responses from a language model, many at a time, reproducibly.
//!
//! Prompts' token ids and one seed a response go in; token ids, reasons of ending and logprobs come out. Knows nothing of Arrow,
//! text or rewards.

mod batch;
mod continuous;
mod error;
mod generator;
#[cfg(feature = "gpu")]
mod gpu;
mod processor;
mod sampler;

use std::ops::ControlFlow;

pub use error::GenerationError;
pub use generator::{FinishReason, Generated, Generator};
pub use sampler::{Draw, Sampler, Sampling};

/// Is told how many tokens there are after every step, and may stop the work.
pub type Observe<'a> = &'a mut (dyn FnMut(usize) -> ControlFlow<()> + Send);
