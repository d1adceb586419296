//! Judge answers: memoized answers of judges, by a hash of everything they depend on. All runs of a
//! folder share them, so no question is asked twice.

use std::collections::BTreeMap;

use super::check::{at_least, finite};

table! {
    JudgeAnswers, version 1, key [key];
    /// One answer of a judge.
    pub struct Row {
        /// The hash of the request: judge, settings and question.
        pub key: [u8; 32],
        /// The answer.
        pub text: String,
        /// The most likely tokens in the first place with their logprobs, in nats. Null unless they
        /// were asked for.
        pub first_token: Option<BTreeMap<String, f64>>,
        /// Tokens of the question, as the server counts them.
        pub prompt_tokens: i64,
        /// Tokens of the answer.
        pub completion_tokens: i64,
    }
}

impl View<'_> {
    /// Counts from 0, finite logprobs.
    fn check(&self) -> Result<(), String> {
        at_least("prompt_tokens", 0, self.prompt_tokens)?;
        at_least("completion_tokens", 0, self.completion_tokens)?;
        self.first_token.iter().flatten().try_for_each(|(token, logprob)| finite(&format!("first_token[{token}]"), *logprob))
    }
}
