//! Selection: the decision which prompts get new responses. Every prompt has a row.

use super::check::{at_least, finite_or_null, not_empty};

table! {
    Selection, version 2, key [prompt_id];
    /// The decision about one prompt.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// The statistic of its rewards, by which prompts were ranked. Null where there is none
        /// yet.
        pub score: Option<f64>,
        /// Its rank, from 1.
        pub rank: i64,
        /// Whether it gets new responses.
        pub selected: bool,
        /// By how much new responses are expected to raise the best reward, or to widen the gap of
        /// best and worst, as the strategy `expected_gain` says. Null for a prompt without rewards,
        /// and where nothing is predicted.
        pub expected_gain: Option<f64>,
        /// The tokens expected of its new responses. Null where nothing is predicted.
        pub expected_tokens: Option<f64>,
        /// What the strategy `posterior` believes of its rewards, from 0 to 1. Null for the others.
        pub belief_mean: Option<f64>,
        /// How sure that is: the variance of the belief.
        pub belief_variance: Option<f64>,
    }
}

impl View<'_> {
    /// Finite numbers, and a rank from 1.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        finite_or_null("score", self.score)?;
        at_least("rank", 1, self.rank)?;
        finite_or_null("expected_gain", self.expected_gain)?;
        finite_or_null("expected_tokens", self.expected_tokens)?;
        finite_or_null("belief_mean", self.belief_mean)?;
        finite_or_null("belief_variance", self.belief_variance)
    }
}
