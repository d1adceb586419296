//! The selection strategies: the formula, the source and the code of each.
//!
//! N is the number of prompts and t the iteration. score(p) is the statistic `rank_by` of the
//! rewards of p's responses in the pool. Every strategy ranks prompts by a key in ascending order.
//! Ties go to the smaller prompt_id. A prompt without a reward has no key and ranks first: nothing
//! is known about it, so it is sampled again. `reference_sql` has the same formulas as SQL. Knows
//! numbers and ids, not the tables they come from.

use super::posterior::Belief;
use crate::operators::support::rng;
use crate::operators::support::running_spread::Spread;
use crate::pipeline::spec::select::{Band, DropHardest, ExpectedGain, Posterior, Select, SkipUninformative, Strategy, ZScore};

/// A prompt to rank.
pub(super) struct RankedPrompt<'a> {
    /// Its prompt_id.
    pub(super) id: &'a str,
    /// The rewards of its responses in the pool.
    pub(super) rewards: &'a [f64],
    /// The statistic of the rewards; `None` without any reward.
    pub(super) score: Option<f64>,
    /// The score in the last selection.
    pub(super) previous_score: Option<f64>,
    /// The latest iteration in which one of its responses was sampled; `None` without any response.
    pub(super) sampled_iteration: Option<i32>,
    /// Mean and standard deviation of the scores of its group; 0 unless the strategy has a group
    /// column.
    pub(super) group_spread: Spread,
    /// The predicted gain of new responses; `None` without any reward, or without a prediction.
    pub(super) expected_gain: Option<f64>,
    /// The expected tokens of new responses; `None` without a prediction.
    pub(super) expected_tokens: Option<f64>,
    /// What is believed about its rewards; `None` unless the strategy has beliefs.
    pub(super) belief: Option<Belief>,
    /// The source of its random number.
    pub(super) stream: rng::Stream,
}

/// The columns by which prompts are ranked.
#[derive(Clone, Copy)]
pub(super) enum RankOrder {
    /// The score.
    Score,
    /// The key of the strategy.
    Key,
    /// The key of the strategy, then the score.
    KeyThenScore,
}

impl RankOrder {
    /// The order as an SQL list.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Score => "score ASC NULLS FIRST",
            Self::Key => "key ASC NULLS FIRST",
            Self::KeyThenScore => "key ASC NULLS FIRST, score ASC NULLS FIRST",
        }
    }

    /// Whether the strategy has a key other than the score.
    pub(super) fn has_key(self) -> bool {
        !matches!(self, Self::Score)
    }
}

/// A way to choose prompts. Without an override, it ranks by the score and excludes no prompt.
pub(super) trait SelectionStrategy {
    /// The columns to rank by.
    fn order(&self) -> RankOrder {
        RankOrder::Score
    }

    /// The key of a prompt; `None` ranks first.
    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        prompt.score
    }

    /// Whether some prompts may not be selected.
    fn excludes_prompts(&self) -> bool {
        false
    }

    /// Whether this prompt may be selected.
    fn is_eligible(&self, _: &RankedPrompt) -> bool {
        true
    }

    /// The share of all prompts left out at the start of the ranking.
    fn dropped_share(&self) -> f64 {
        0.0
    }

    /// The column of the prompts with the group of each prompt, for a comparison within groups.
    fn group_column(&self) -> Option<&str> {
        None
    }
}

/// The strategy of these settings. `all` selects every prompt, so its ranking does not matter.
pub(super) fn strategy(settings: &Select) -> &dyn SelectionStrategy {
    match &settings.strategy {
        Strategy::LowestReward | Strategy::All => &LowestReward,
        Strategy::HighestReward => &HighestReward,
        Strategy::Random => &Random,
        Strategy::RewardGain => &RewardGain,
        Strategy::DropHardest(settings) => settings,
        Strategy::Band(settings) => settings,
        Strategy::ZScore(settings) => settings,
        Strategy::SkipUninformative(settings) => settings,
        Strategy::ExpectedGain(settings) => settings,
        Strategy::Posterior(settings) => settings,
    }
}

/// # `lowest_reward`
///
/// The prompts with the lowest rewards first (OPTune, arXiv 2406.07657).
///
/// key(p) = score(p).
struct LowestReward;

impl SelectionStrategy for LowestReward {}

/// # `highest_reward`
///
/// The prompts with the highest rewards first. This is the opposite of OPTune's choice, for a
/// comparison: figure 2 of arXiv 2406.07657 plots the gain of one against the gain of the other.
///
/// key(p) = −score(p).
struct HighestReward;

impl SelectionStrategy for HighestReward {
    fn order(&self) -> RankOrder {
        RankOrder::Key
    }

    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        prompt.score.map(|score| -score)
    }
}

/// # `random`
///
/// Prompts in a random order from the seed, independent of rewards: Rdm_ρ of arXiv 2406.07657.
///
/// key(p) = draw(seed, t, p), uniform.
struct Random;

impl SelectionStrategy for Random {
    fn order(&self) -> RankOrder {
        RankOrder::Key
    }

    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        Some(prompt.stream.draw(prompt.id) as f64)
    }
}

/// # `reward_gain`
///
/// The prompts with the largest rise in reward in the last iteration first: new samples have just
/// paid off there. Curriculum learning uses learning progress in the same way (e.g. arXiv
/// 1704.03003).
///
/// key(p) = score\[t−1\](p) − score\[t\](p). The selection of iteration t computes score\[t\] from
/// pool\[t−1\]. The key is 0 for a prompt without new responses, so it ranks before the prompts
/// with a loss. Of equal keys, the lower score ranks first.
struct RewardGain;

impl SelectionStrategy for RewardGain {
    fn order(&self) -> RankOrder {
        RankOrder::KeyThenScore
    }

    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        Some(prompt.previous_score? - prompt.score?)
    }
}

/// # `drop_hardest`
///
/// `lowest_reward` without the floor(share·N) prompts of lowest reward. The policy may not be able
/// to learn from them yet.
///
/// key(p) = score(p). The first floor(share·N) ranks are left out, or fewer if fewer than
/// ceil(ratio·N) prompts would remain. A prompt without any reward counts among the hardest.
impl SelectionStrategy for DropHardest {
    fn dropped_share(&self) -> f64 {
        self.share
    }
}

/// # `band`
///
/// `lowest_reward` among the prompts of medium difficulty. Reinforcement learning from verifiable
/// rewards often filters prompts by the pass rate of the policy (e.g. arXiv 2504.03380).
///
/// key(p) = score(p). p is eligible if low ≤ score(p) ≤ high, or if it has no reward yet.
impl SelectionStrategy for Band {
    fn excludes_prompts(&self) -> bool {
        self.low.is_some() || self.high.is_some()
    }

    fn is_eligible(&self, prompt: &RankedPrompt) -> bool {
        let above_low = |score| self.low.is_none_or(|low| score >= low);
        let below_high = |score| self.high.is_none_or(|high| score <= high);
        prompt.score.is_none_or(|score| above_low(score) && below_high(score))
    }
}

/// # `z_score`
///
/// The prompts with the lowest rewards relative to their group first. Rewards are comparable only
/// between prompts of similar tasks. In a ranking by reward alone, one hard group of tasks can fill
/// the whole selection.
///
/// key(p) = (s − μ) / σ of the scores s in p's group, and 0 if all scores of the group are equal.
/// The prompts without a group form one group. Keys are rounded to nine decimal places, so equal
/// z-scores stay equal in any order of summation.
impl SelectionStrategy for ZScore {
    fn order(&self) -> RankOrder {
        RankOrder::Key
    }

    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        let score = prompt.score?;
        let Spread { mean, deviation } = prompt.group_spread;
        if deviation > LEAST_RELATIVE_SPREAD * mean.abs() {
            // + 0.0 turns −0 into 0: the two would get different ranks.
            Some(((score - mean) / deviation * Z_SCORE_SCALE).round() + 0.0)
        } else {
            Some(0.0)
        }
    }

    fn group_column(&self) -> Option<&str> {
        Some(&self.group)
    }
}

/// A standard deviation below this share of the mean comes from rounding only.
pub(super) const LEAST_RELATIVE_SPREAD: f64 = 1e-9;

/// The factor before z-scores are rounded: nine decimal places.
pub(super) const Z_SCORE_SCALE: f64 = 1e9;

/// # `skip_uninformative`
///
/// `lowest_reward` without most of the prompts with equal rewards for all their responses: they
/// make no pair, and will probably make none next time. After GRESO (arXiv 2506.02177). GRESO skips
/// a prompt with z uninformative samplings in a row with probability 1 − p^z. A pool holds only the
/// last sampling, so z is 1 here.
///
/// key(p) = score(p). p is eligible if its rewards differ, if it has none yet, or if
/// draw(seed, t, p) < explore, with a draw uniform in [0, 1).
impl SelectionStrategy for SkipUninformative {
    fn excludes_prompts(&self) -> bool {
        true
    }

    fn is_eligible(&self, prompt: &RankedPrompt) -> bool {
        let Some((first, others)) = prompt.rewards.split_first() else { return true };
        let is_drawn = || prompt.stream.draw(prompt.id) as f64 / DRAW_COUNT + 0.5 < self.explore;
        others.iter().any(|reward| reward != first) || is_drawn()
    }
}

/// # `expected_gain`
///
/// The prompts with the largest expected gain of new responses for each token first. The file
/// `expected_gain.rs` says how a gain is predicted.
///
/// key(p) = −gain(p) / tokens(p). tokens(p) is k = `responses_per_prompt` times the mean length of
/// p's responses.
impl SelectionStrategy for ExpectedGain {
    fn order(&self) -> RankOrder {
        RankOrder::Key
    }

    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        // + 0.0 turns −0 into 0: the two would get different ranks.
        Some(-prompt.expected_gain? / prompt.expected_tokens? + 0.0)
    }
}

/// # `posterior`
///
/// The prompts with rewards near the middle first, and those of which little is known. A prompt
/// whose responses are half good and half bad teaches most (MoPPS, arXiv 2507.04632; KGPS, arXiv
/// 2607.27610). They draw from the belief; here its standard deviation counts instead. The file
/// `posterior.rs` says how a belief is learnt.
///
/// key(p) = |mean − ½| − explore · standard deviation of the belief about p.
impl SelectionStrategy for Posterior {
    fn order(&self) -> RankOrder {
        RankOrder::Key
    }

    fn key(&self, prompt: &RankedPrompt) -> Option<f64> {
        prompt.score?;
        let belief = prompt.belief?;
        Some((belief.mean - 0.5).abs() - self.explore * belief.variance.sqrt())
    }
}

/// The number of values of a draw: 2^64, all equally probable, half of them negative.
pub(super) const DRAW_COUNT: f64 = 18_446_744_073_709_551_616.0;
