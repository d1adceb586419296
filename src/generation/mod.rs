//! Sampling responses from a language model, many at a time, reproducibly.
//!
//! Prompts' token ids and one seed a response go in; token ids, reasons of ending and logprobs come
//! out. Knows nothing of devices, Arrow or rewards, and of text only where it ends a response.

mod continuous;
mod cpu;
mod engine;
mod error;
mod generator;
#[cfg(feature = "gpu")]
mod gpu;
mod penalties;
mod reference;
mod response;
mod sampler;
mod stop_strings;

use std::ops::ControlFlow;

pub use error::GenerationError;
pub use generator::{Generated, Generator};
pub use penalties::Penalties;
pub use response::FinishReason;
pub use sampler::{SampledToken, Sampler, Sampling};
pub use stop_strings::{ResponseText, StopStrings};

/// Is told how many tokens there are after every step, and may stop the work.
pub type Observe<'a> = &'a mut (dyn FnMut(usize) -> ControlFlow<()> + Send);
