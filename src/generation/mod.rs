//! Sampling responses from a language model, many at a time, reproducibly.
//!
//! Prompts' token ids and one seed a response go in; token ids, reasons of ending and logprobs come
//! out. Knows nothing of devices, Arrow, text or rewards.

mod continuous;
mod cpu;
mod engine;
mod error;
mod generator;
#[cfg(feature = "gpu")]
mod gpu;
mod reference;
mod response;
mod sampler;

use std::ops::ControlFlow;

pub use error::GenerationError;
pub use generator::{Generated, Generator};
pub use response::FinishReason;
pub use sampler::{SampledToken, Sampler, Sampling};

/// Is told how many tokens there are after every step, and may stop the work.
pub type Observe<'a> = &'a mut (dyn FnMut(usize) -> ControlFlow<()> + Send);
