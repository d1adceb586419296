//! Sampling responses from a language model, many at a time, reproducibly.
//!
//! Prompts' token ids and one seed a response go in; token ids, reasons of ending and logprobs come out. Knows nothing of Arrow,
//! text or rewards.

mod decode;
mod error;
mod sampler;

pub use decode::{FinishReason, Generated, generate};
pub use error::GenerationError;
pub use sampler::{Draw, Sampler, Sampling};
