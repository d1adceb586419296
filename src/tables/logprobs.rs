//! Logprobs: what a model makes of responses, by a hash of all that decides it. Kept beside the runs, so that none is computed twice.

use super::check::finite;

table! {
    Logprobs, version 1, key [key];
    /// The logprob of one response given its prompt.
    pub struct Row {
        /// The hash of the token ids and of how the logprob was computed.
        pub key: [u8; 32],
        /// Sum over the response's tokens, in nats.
        pub logprob: f64,
    }
}

impl View<'_> {
    /// A finite logprob.
    fn check(&self) -> Result<(), String> {
        finite("logprob", self.logprob)
    }
}
