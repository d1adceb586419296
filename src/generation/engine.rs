//! What a generator samples with. Knows no device.

use std::fmt::Debug;

use super::response::ActiveResponse;
use super::{GenerationError, Observe, Sampling};
use crate::token_lists::TokenLists;

/// How much is computed at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Responses that are sampled together, at most.
    pub(super) batch_size: usize,
    /// Bytes of keys and values, at most, but for a single response.
    pub(super) cache_bytes: usize,
}

/// A model and a way to sample from it.
pub(super) trait Engine: Debug + Send + Sync {
    /// What keys and values take at most, unless there is less memory.
    fn cache_bytes(&self) -> usize;

    /// Samples all `responses`, which are in the order of their prompts.
    fn sample(
        &self,
        prompts: &TokenLists,
        responses: &mut [ActiveResponse],
        sampling: &Sampling,
        limits: Limits,
        observe: Observe<'_>,
    ) -> Result<(), GenerationError>;
}
