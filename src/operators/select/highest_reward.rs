//! highest_reward: the prompts whose responses were rewarded most first. The opposite of OPTune's choice, to compare with: figure 2 of arXiv
//! 2406.07657 sets the gain of one against that of the other.
//!
//! key(p) = −statistic of the rewards of p's responses in the pool, ascending.

use super::{Known, Rule};

pub(super) struct HighestReward;

impl Rule for HighestReward {
    fn key_sql(&self) -> Option<String> {
        Some("-score".to_string())
    }

    fn key(&self, prompt: &Known) -> Option<f64> {
        prompt.score.map(|score| -score)
    }
}
