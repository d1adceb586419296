//! The prediction behind `expected_gain`: how much new responses will improve a prompt.
//!
//! The next reward of a prompt is predicted from the rewards of all prompts. Each seen reward is
//! held out once: it makes a pair with the mean of its prompt's other rewards. The `neighbors`
//! pairs with the means nearest to the mean of a prompt are the predicted distribution of its next
//! reward. All pairs at the distance of the last one count too.
//!
//! With k new responses, drawn from this distribution F, the best reward b rises by
//! E[max(0, max of k draws − b)]. This is the expected improvement of Bayesian optimization (Jones,
//! Schonlau and Welch 1998), for k draws and a distribution of any shape. The worst reward falls
//! likewise. The gain of a prompt's pair is both together. Knows numbers, not tables.

use std::collections::HashMap;
use std::ops::Range;

use super::seen_rewards::SeenRewards;
use crate::pipeline::spec::select::{ExpectedGain, Objective, Select, Strategy};

/// Predicts the gain and the tokens of new responses.
pub(super) struct GainPredictor {
    scale: Scale,
    pairs: Vec<Pair>,
    neighbors: usize,
    objective: Objective,
    /// New responses to a selected prompt.
    new_responses: u32,
    /// The mean length of all responses, in tokens.
    mean_tokens: f64,
    /// The distributions of large ranges of pairs.
    known: HashMap<Range<usize>, Distribution>,
    /// The number of values in `known`.
    known_values: usize,
}

/// A seen reward and the mean of the other rewards of its prompt. Pairs are sorted by this mean.
#[derive(Clone, Copy)]
struct Pair {
    others: Level,
    reward: f64,
}

/// A mean in billionths of the range of all rewards. Means that are equal but for rounding are
/// equal as levels, whatever the order of their sums.
type Level = i64;

/// Levels in the range of all rewards.
const LEVELS: f64 = 1e9;

/// Gains are multiples of this share of the range of all rewards, so that equal gains stay equal
/// whatever the order of their sums.
const GAIN_STEP: f64 = 1e-12;

/// Values of distributions to keep, at most.
const MOST_KNOWN_VALUES: usize = 1 << 22;

impl GainPredictor {
    /// The prediction from all seen rewards.
    pub(super) fn new(seen: &SeenRewards, settings: &Select) -> Self {
        let ExpectedGain { objective, neighbors } = match settings.strategy {
            Strategy::ExpectedGain(settings) => settings,
            _ => ExpectedGain::default(),
        };
        let scale = Scale::new(seen.rewards());
        let mut pairs = Vec::with_capacity(seen.rewards().len());
        for rewards in seen.prompts().filter(|rewards| rewards.len() > 1) {
            let rewards = scale.sorted_shares(rewards);
            let sum = rewards.iter().sum::<f64>();
            let others = (rewards.len() - 1) as f64;
            pairs.extend(rewards.iter().map(|reward| Pair { others: level((sum - reward) / others), reward: *reward }));
        }
        if pairs.is_empty() {
            // No prompt has two rewards. Then every seen reward predicts every prompt.
            pairs.extend(seen.rewards().iter().map(|reward| Pair { others: 0, reward: scale.share(*reward) }));
        }
        pairs.sort_unstable_by(|one, other| one.others.cmp(&other.others).then(one.reward.total_cmp(&other.reward)));
        let mean_tokens = seen.mean_tokens();
        let new_responses = settings.responses_per_prompt;
        let neighbors = neighbors as usize;
        Self { scale, pairs, neighbors, objective, new_responses, mean_tokens, known: HashMap::new(), known_values: 0 }
    }

    /// The expected gain of a prompt with these rewards; `None` if it has none. At least 0.
    pub(super) fn gain(&mut self, rewards: &[f64]) -> Option<f64> {
        let rewards = self.scale.sorted_shares(rewards);
        let (worst, best) = (*rewards.first()?, *rewards.last()?);
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        let objective = self.objective;
        let gain = self.with_distribution(self.nearest(level(mean)), |next| match objective {
            Objective::Best => next.rise_above(best),
            Objective::Gap => next.rise_above(best) + next.fall_below(worst),
        });
        Some(self.scale.difference((gain / GAIN_STEP).round() * GAIN_STEP))
    }

    /// The expected tokens of the new responses of a prompt, from the lengths of its responses in
    /// the pool, or from those of all prompts if it has none. At least 1 a response.
    pub(super) fn tokens(&self, token_counts: &[i32]) -> f64 {
        let mean = if token_counts.is_empty() {
            self.mean_tokens
        } else {
            token_counts.iter().copied().map(i64::from).sum::<i64>() as f64 / token_counts.len() as f64
        };
        mean.max(1.0) * f64::from(self.new_responses)
    }

    /// The pairs nearest to a mean: `neighbors`, and all others at the distance of the last one.
    fn nearest(&self, mean: Level) -> Range<usize> {
        let mut end = self.pairs.partition_point(|pair| pair.others < mean);
        let mut start = end;
        let mut distance = 0;
        for _ in 0..self.neighbors.min(self.pairs.len()) {
            let before = start.checked_sub(1).map_or(Level::MAX, |index| mean - self.pairs[index].others);
            let behind = self.pairs.get(end).map_or(Level::MAX, |pair| pair.others - mean);
            if before <= behind {
                start -= 1;
            } else {
                end += 1;
            }
            distance = before.min(behind);
        }
        let start = self.pairs.partition_point(|pair| pair.others < mean - distance);
        let end = self.pairs.partition_point(|pair| pair.others <= mean + distance);
        start..end
    }

    /// Calls `ask` with the distribution of the rewards of these pairs.
    fn with_distribution(&mut self, pairs: Range<usize>, ask: impl Fn(&Distribution) -> f64) -> f64 {
        if let Some(known) = self.known.get(&pairs) {
            return ask(known);
        }
        let rewards = self.pairs[pairs.clone()].iter().map(|pair| pair.reward).collect();
        let distribution = Distribution::new(rewards, self.new_responses);
        let answer = ask(&distribution);
        // Small ranges are cheap to make again. Large ones come from equal means, again and again.
        if pairs.len() > 2 * self.neighbors {
            self.known_values += distribution.values.len();
            if self.known_values > MOST_KNOWN_VALUES {
                self.known.clear();
                self.known_values = distribution.values.len();
            }
            self.known.insert(pairs, distribution);
        }
        answer
    }
}

/// The level of a share of the range of all rewards.
fn level(share: f64) -> Level {
    (share * LEVELS).round() as Level
}

/// Turns rewards into shares of their range. Halves, because the range itself may be infinite.
struct Scale {
    half_lowest: f64,
    half_range: f64,
}

impl Scale {
    fn new(rewards: &[f64]) -> Self {
        let lowest = rewards.iter().copied().reduce(f64::min).unwrap_or_default();
        let highest = rewards.iter().copied().reduce(f64::max).unwrap_or_default();
        Self { half_lowest: lowest / 2.0, half_range: highest / 2.0 - lowest / 2.0 }
    }

    /// 0 for the lowest reward, 1 for the highest one; 0 if all are equal.
    fn share(&self, reward: f64) -> f64 {
        if self.half_range > 0.0 { (reward / 2.0 - self.half_lowest) / self.half_range } else { 0.0 }
    }

    /// The shares of these rewards, sorted: then their sum does not depend on their order.
    fn sorted_shares(&self, rewards: &[f64]) -> Vec<f64> {
        let mut shares: Vec<f64> = rewards.iter().map(|reward| self.share(*reward)).collect();
        shares.sort_unstable_by(f64::total_cmp);
        shares
    }

    /// A difference of shares as a difference of rewards, at most the largest number.
    fn difference(&self, shares: f64) -> f64 {
        (shares * self.half_range * 2.0).min(f64::MAX)
    }
}

/// The best and the worst of k draws from some rewards.
struct Distribution {
    /// The different rewards, ascending.
    values: Vec<f64>,
    /// Of the values from here on: the probability that the best is among them, and its mean there
    /// times this probability.
    best: Vec<(f64, f64)>,
    /// Of the values before here: the same for the worst.
    worst: Vec<(f64, f64)>,
}

impl Distribution {
    fn new(mut rewards: Vec<f64>, draws: u32) -> Self {
        rewards.sort_unstable_by(f64::total_cmp);
        let count = rewards.len() as f64;
        let mut values = Vec::new();
        // Of each value: the probabilities that it is the best, and the worst.
        let mut probabilities = Vec::new();
        let mut below = 0.0;
        for equal in rewards.chunk_by(|one, other| one == other) {
            let through = below + equal.len() as f64;
            values.extend(equal.first());
            let is_best = power(through / count, draws) - power(below / count, draws);
            let is_worst = power((count - below) / count, draws) - power((count - through) / count, draws);
            probabilities.push((is_best, is_worst));
            below = through;
        }
        let mut best = vec![(0.0, 0.0); values.len() + 1];
        let mut worst = best.clone();
        for index in (0..values.len()).rev() {
            let (probability, sum) = best[index + 1];
            best[index] = (probability + probabilities[index].0, sum + probabilities[index].0 * values[index]);
        }
        for index in 0..values.len() {
            let (probability, sum) = worst[index];
            worst[index + 1] = (probability + probabilities[index].1, sum + probabilities[index].1 * values[index]);
        }
        Self { values, best, worst }
    }

    /// E[max(0, best of the draws − `reward`)].
    fn rise_above(&self, reward: f64) -> f64 {
        let (probability, sum) = self.best[self.values.partition_point(|value| *value <= reward)];
        (sum - probability * reward).max(0.0)
    }

    /// E[max(0, `reward` − worst of the draws)].
    fn fall_below(&self, reward: f64) -> f64 {
        let (probability, sum) = self.worst[self.values.partition_point(|value| *value < reward)];
        (probability * reward - sum).max(0.0)
    }
}

/// `base` to a whole power, by squaring. `powi` is not the same on all platforms.
fn power(base: f64, exponent: u32) -> f64 {
    let mut result = 1.0;
    for bit in (0..u32::BITS - exponent.leading_zeros()).rev() {
        result *= result;
        if exponent >> bit & 1 == 1 {
            result *= base;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictor(prompts: &[&[f64]], settings: ExpectedGain, responses_per_prompt: u32) -> GainPredictor {
        let mut seen = SeenRewards::default();
        prompts.iter().for_each(|rewards| seen.add(rewards, &vec![3; rewards.len()]));
        let strategy = Strategy::ExpectedGain(settings);
        GainPredictor::new(&seen, &Select { strategy, responses_per_prompt, ..Select::default() })
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-11), "expected {expected}, found {found:?}");
    }

    #[test]
    fn one_prompt_expects_nothing_new() {
        for objective in [Objective::Best, Objective::Gap] {
            let mut predictor = predictor(&[&[1.0, 4.0, 2.0]], ExpectedGain { objective, neighbors: 60 }, 2);
            assert_eq!(predictor.gain(&[1.0, 4.0, 2.0]), Some(0.0));
            assert_eq!(predictor.gain(&[]), None);
        }
    }

    #[test]
    fn constant_rewards_expect_no_gain() {
        let settings = ExpectedGain { objective: Objective::Gap, neighbors: 2 };
        let mut predictor = predictor(&[&[0.1, 0.1, 0.1], &[0.1; 7], &[0.1]], settings, 5);
        assert_eq!(predictor.gain(&[0.1, 0.1, 0.1]), Some(0.0));
        assert_eq!(predictor.gain(&[0.1]), Some(0.0));
    }

    #[test]
    fn of_two_values_the_gain_is_the_share_of_successes_after_a_failure() {
        // After a failure come two failures and one success, after a success one success and one
        // failure.
        let prompts: [&[f64]; 2] = [&[0.0, 0.0], &[0.0, 1.0]];
        let best = ExpectedGain { objective: Objective::Best, neighbors: 1 };
        close(predictor(&prompts, best, 1).gain(&[0.0, 0.0]), 1.0 / 3.0);
        close(predictor(&prompts, best, 2).gain(&[0.0, 0.0]), 1.0 - (2.0 / 3.0) * (2.0 / 3.0));
        close(predictor(&prompts, best, 2).gain(&[0.0, 1.0]), 0.0);
        // After one success: the only pair with a mean of 1 is a failure.
        let gap = ExpectedGain { objective: Objective::Gap, neighbors: 1 };
        close(predictor(&prompts, gap, 3).gain(&[1.0]), 1.0);
        close(predictor(&prompts, best, 3).gain(&[1.0]), 0.0);
    }

    #[test]
    fn without_two_rewards_of_a_prompt_all_rewards_predict() {
        let settings = ExpectedGain { objective: Objective::Best, neighbors: 1 };
        let mut predictor = predictor(&[&[0.0], &[3.0], &[6.0]], settings, 1);
        close(predictor.gain(&[3.0]), 1.0);
        close(predictor.gain(&[0.0]), 3.0);
    }

    #[test]
    fn the_largest_numbers_give_no_nan() {
        let settings = ExpectedGain { objective: Objective::Gap, neighbors: 60 };
        let mut predictor = predictor(&[&[f64::MAX, f64::MIN], &[0.0, 1.0]], settings, 1_000_000);
        for rewards in [[f64::MAX, f64::MIN], [0.0, 1.0], [f64::MAX, f64::MAX]] {
            assert!(predictor.gain(&rewards).is_some_and(f64::is_finite));
        }
    }

    #[test]
    fn tokens_are_those_of_the_prompt_or_of_all() {
        let predictor = predictor(&[&[0.0, 1.0]], ExpectedGain::default(), 4);
        assert_eq!(predictor.tokens(&[10, 20]), 60.0);
        assert_eq!(predictor.tokens(&[]), 12.0);
        assert_eq!(predictor.tokens(&[0]), 4.0);
    }

    #[test]
    fn powers_are_products() {
        assert_eq!([0, 1, 2, 5, 10].map(|exponent| power(2.0, exponent)), [1.0, 2.0, 4.0, 32.0, 1024.0]);
        assert_eq!((power(0.0, 0), power(0.0, 3)), (1.0, 0.0));
    }
}
