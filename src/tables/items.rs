//! Items: the graded answers of a model to a benchmark, one row an item.

use std::collections::BTreeMap;

use super::check::{at_least, finite, not_empty};

table! {
    Items, version 1, key [task, item];
    /// One item of one task, with the model's answer and its scores.
    pub struct Row {
        /// The task.
        pub task: String,
        /// The item's row in the table of items, from 0.
        pub item: i64,
        /// The item's id.
        pub item_id: String,
        /// Multiple choice: the logprob of each choice behind the question, in nats. Null for a
        /// generated answer.
        pub logprobs: Option<Vec<f64>>,
        /// The choice with the highest logprob, from 0. Of equal ones the first.
        pub picked: Option<i32>,
        /// The right choices, from 0. Null for a generated answer.
        pub right: Option<Vec<i32>>,
        /// The text of the picked choice, or the generated answer.
        pub text: String,
        /// The text of the right answer. Of several ones the first; null where the item has none.
        pub answer: Option<String>,
        /// The length of a generated answer in tokens.
        pub token_count: Option<i32>,
        /// Whether a generated answer was cut by the length limit.
        pub truncated: Option<bool>,
        /// The score by each metric.
        pub scores: BTreeMap<String, f64>,
    }
}

impl View<'_> {
    /// A choice among the logprobs, and finite scores.
    fn check(&self) -> Result<(), String> {
        not_empty("task", self.task)?;
        at_least("item", 0, self.item)?;
        if let (Some(logprobs), Some(picked)) = (&self.logprobs, self.picked)
            && !usize::try_from(picked).is_ok_and(|picked| picked < logprobs.len())
        {
            return Err(format!("picked: expected one of {} choices, found {picked}", logprobs.len()));
        }
        if self.logprobs.is_some() != self.picked.is_some() || self.picked.is_some() != self.right.is_some() {
            return Err("expected logprobs, picked and right together, found some without the others".to_string());
        }
        self.scores.iter().try_for_each(|(name, value)| finite(&format!("scores[{name}]"), *value))
    }
}
