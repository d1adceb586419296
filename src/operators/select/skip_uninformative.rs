//! skip_uninformative: as lowest_reward, without most of the prompts whose responses are all rewarded alike: they make no pair, and will
//! probably make none next time. After GRESO (arXiv 2506.02177), which skips a prompt whose last z samplings were such with probability
//! 1 − p^z; a pool holds the last sampling only, so z is 1 here.
//!
//! p may be selected if its rewards differ, if it has none yet, or if draw(seed, t, p) < explore, uniform in [0, 1); key(p) = statistic of the
//! rewards, ascending.

use super::{Known, Rule};
use crate::pipeline::spec::select::SkipUninformative;

/// How many values a draw has, all alike probable and half of them below 0.
const DRAWS: f64 = 18_446_744_073_709_551_616.0;

impl Rule for SkipUninformative {
    fn eligible_sql(&self) -> Option<String> {
        Some(format!("gap IS NULL OR gap > 0 OR CAST(draw AS DOUBLE) / {DRAWS:?} + 0.5 < {:?}", self.explore))
    }

    fn is_eligible(&self, prompt: &Known) -> bool {
        let differs = |rewards: &[f64]| rewards.iter().any(|reward| *reward != rewards[0]);
        let is_drawn = || prompt.stream.draw(prompt.id) as f64 / DRAWS + 0.5 < self.explore;
        prompt.rewards.is_empty() || differs(prompt.rewards) || is_drawn()
    }
}
