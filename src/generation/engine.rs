//! The interface between a generator and a model with a way to sample from it. Knows no device.

use std::fmt::Debug;

use super::response::ActiveResponse;
use super::{GenerationError, Observe, Sampling};
use crate::token_lists::TokenLists;

/// How much is computed at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most responses sampled together.
    pub(super) batch_size: usize,
    /// Bytes of keys and values, at most, but for a single response.
    pub(super) cache_bytes: usize,
}

/// A model and a way to sample from it.
pub(super) trait Engine: Debug + Send + Sync {
    /// The limit for keys and values, in bytes, where the caller has room for so many.
    fn cache_bytes(&self, room: Option<usize>) -> usize;

    /// Samples all `responses`, ordered by prompt.
    fn sample(
        &self,
        prompts: &TokenLists,
        responses: &mut [ActiveResponse],
        sampling: &Sampling,
        limits: Limits,
        observe: Observe<'_>,
    ) -> Result<(), GenerationError>;
}
