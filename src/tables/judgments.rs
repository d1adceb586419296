//! Judgments: a judge's verdicts on pairs of responses, each pair in both orders.

use super::cell::Outcome;
use super::check::{at_least, not_empty};
use crate::win_rates::Judged;

/// The order with the policy's response first.
pub const POLICY_FIRST: &str = "policy_first";
/// The order with the baseline's response first.
pub const BASELINE_FIRST: &str = "baseline_first";

table! {
    Judgments, version 1, key [prompt_id, response_index, order];
    /// One verdict on a response of the policy beside one of the baseline.
    pub struct Row {
        /// The prompt.
        pub prompt_id: String,
        /// The number of the policy's response among the prompt's responses, from 0.
        pub response_index: i32,
        /// The order in the question: `policy_first` or `baseline_first`.
        pub order: String,
        /// The verdict on the policy's response: `win`, `tie` or `loss`. Null exactly if there is
        /// an `error`.
        pub verdict: Option<Outcome>,
        /// The policy's response.
        pub text: String,
        /// The baseline's response.
        pub baseline_text: String,
        /// The judge's answer. Null for equal texts, a tie without a question, and for an error.
        pub answer: Option<String>,
        /// Tokens of the question, as the server counts them.
        pub prompt_tokens: Option<i64>,
        /// Tokens of the answer, as the server counts them.
        pub completion_tokens: Option<i64>,
        /// The reason why there is no verdict.
        pub error: Option<String>,
    }
}

impl View<'_> {
    /// A known order, and either a verdict or an error.
    fn check(&self) -> Result<(), String> {
        not_empty("prompt_id", self.prompt_id)?;
        at_least("response_index", 0, self.response_index)?;
        if ![POLICY_FIRST, BASELINE_FIRST].contains(&self.order) {
            return Err(format!("order: expected {POLICY_FIRST} or {BASELINE_FIRST}, found {:?}", self.order));
        }
        for (name, count) in [("prompt_tokens", self.prompt_tokens), ("completion_tokens", self.completion_tokens)] {
            count.map_or(Ok(()), |count| at_least(name, 0, count))?;
        }
        match (&self.verdict, &self.error) {
            (None, None) => Err("expected a verdict or an error, found neither".to_string()),
            (Some(_), Some(error)) => Err(format!("expected a verdict or an error, found both, with the error {error:?}")),
            _ => Ok(()),
        }
    }
}

/// The pairs of rows in the order of the table.
pub fn judged(rows: &[Row]) -> Vec<Judged> {
    let verdict = |pair: &[Row], order: &str| {
        Some(match pair.iter().find(|row| row.order == order)?.verdict? {
            Outcome::Win => 1.0,
            Outcome::Tie => 0.5,
            Outcome::Loss => 0.0,
        })
    };
    let pairs = rows.chunk_by(|one, other| (&one.prompt_id, one.response_index) == (&other.prompt_id, other.response_index));
    let judged = |pair: &[Row]| {
        let first = pair.first()?;
        Some(Judged {
            prompt: first.prompt_id.clone(),
            policy_first: verdict(pair, POLICY_FIRST),
            baseline_first: verdict(pair, BASELINE_FIRST),
            asked: first.text != first.baseline_text,
            length: first.text.chars().count() as f64,
            baseline_length: first.baseline_text.chars().count() as f64,
        })
    };
    pairs.filter_map(judged).collect()
}
