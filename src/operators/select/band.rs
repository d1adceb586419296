//! band: as lowest_reward, of the prompts that are neither too hard nor too easy. Filtering by the policy's own pass rate is common in
//! reinforcement learning from checkable rewards (e.g. arXiv 2504.03380).
//!
//! p may be selected if low ≤ statistic(p) ≤ high, or if it has no reward yet; key(p) = statistic, ascending.

use super::{Known, Rule};
use crate::pipeline::spec::select::Band;

impl Rule for Band {
    fn eligible_sql(&self) -> Option<String> {
        let low = self.low.map(|low| format!("score >= {low:?}"));
        let high = self.high.map(|high| format!("score <= {high:?}"));
        let bounds: Vec<String> = low.into_iter().chain(high).collect();
        (!bounds.is_empty()).then(|| format!("score IS NULL OR ({})", bounds.join(" AND ")))
    }

    fn is_eligible(&self, prompt: &Known) -> bool {
        prompt.score.is_none_or(|score| self.low.is_none_or(|low| score >= low) && self.high.is_none_or(|high| score <= high))
    }
}
