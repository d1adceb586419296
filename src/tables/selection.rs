//! Selection: the decision which prompts get new responses. Every prompt has a row.

use super::check::{at_least, finite_or_null, not_empty};

table! {
    Selection, version 1, key [prompt_id];
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
    }
}

impl View<'_> {
    /// A finite score, and a rank from 1.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        finite_or_null("score", self.score)?;
        at_least("rank", 1, self.rank)
    }
}
