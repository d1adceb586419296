//! reward_gain: the prompts whose rewards rose most in the last iteration first: where sampling anew just paid. Learning progress as what
//! to go on with is an idea of curriculum learning (e.g. arXiv 1704.03003).
//!
//! key(p) = score[t−1](p) − score[t](p), ascending, where score[t] is the statistic that the selection of iteration t ranks by: the rewards
//! in pool[t−1]. It is 0 for a prompt that was not regenerated, which so comes before those that lost. Of equal ones the one with the lowest
//! score is first.

use super::{Known, Rule};

pub(super) struct RewardGain;

impl Rule for RewardGain {
    fn key_sql(&self) -> Option<String> {
        Some("before - score".to_string())
    }

    fn key(&self, prompt: &Known) -> Option<f64> {
        Some(prompt.before? - prompt.score?)
    }

    fn order(&self) -> &'static str {
        "key ASC NULLS FIRST, score ASC NULLS FIRST"
    }
}
