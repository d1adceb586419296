//! Logprobs: memoized logprobs of responses, by a hash of everything they depend on. All runs of a
//! folder share them, so none is computed twice.

use super::check::finite;

table! {
    Logprobs, version 1, key [key];
    /// The logprob of one response given its prompt.
    pub struct Row {
        /// The hash of the token ids, the model and the method of computation.
        pub key: [u8; 32],
        /// The sum over the response's tokens, in nats.
        pub logprob: f64,
    }
}

impl View<'_> {
    /// A finite logprob.
    fn check(&self) -> Result<(), String> {
        finite("logprob", self.logprob)
    }
}
