//! lowest_reward: the prompts whose responses were rewarded least first (OPTune, arXiv 2406.07657).
//!
//! key(p) = statistic of the rewards of p's responses in the pool, ascending.

use super::Rule;

pub(super) struct LowestReward;

impl Rule for LowestReward {}
