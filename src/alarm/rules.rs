//! The rules: what counts as running away.
//!
//! Each rule asks for a large change and for one beyond chance. Large: the constants below. Beyond
//! chance: over the held-out prompts, the mean difference is more than 1.96 standard errors from 0,
//! of at least [`FEWEST_PROMPTS`] prompts. So neither few prompts nor a healthy drift from the
//! initial policy is an alarm. Knows numbers, not their tables.

use super::signals::{Change, Iteration, Prompt};

/// The fewest held-out prompts for an alarm.
pub const FEWEST_PROMPTS: usize = 8;

/// The standard errors between a difference and chance, of a two-sided test at 5 %.
const DEVIATIONS: f64 = 1.96;

/// The share of the reward won that is lost again.
const LOST: f64 = 0.2;

/// The rise of the NLL, in nats a token, and its ratio; either the ratio or twice the rise.
const NLL: (f64, f64) = (0.5, 2.0);

/// The divergence from the reference in nats a token: on average, a token of the training's
/// responses is e times less likely than under the reference.
const KL: f64 = 1.0;

/// The ratio of lengths, and the difference in tokens.
const LENGTH: (f64, f64) = (2.0, 16.0);

/// The share of truncated responses, and its rise.
const TRUNCATED: (f64, f64) = (0.3, 0.2);

/// The loss on a benchmark, in its metric.
const BENCHMARK: f64 = 0.02;

/// A sign of over-optimization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// The reward of held-out prompts is lower than in an earlier iteration.
    RewardFalls,
    /// The reward rises and the responses become unlikely under the initial policy.
    Nll,
    /// The reward rises and the policy leaves the reference.
    Kl,
    /// The reward rises and the responses become long, or short.
    Length,
    /// Responses no longer end within the limit.
    Truncated,
    /// The reward rises and a benchmark falls.
    Benchmark,
}

impl Sign {
    /// Its word for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::RewardFalls => "reward_falls",
            Self::Nll => "nll",
            Self::Kl => "kl",
            Self::Length => "length",
            Self::Truncated => "truncated",
            Self::Benchmark => "benchmark",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::RewardFalls => {
                "take the policy of the best iteration (`optune export policy … --iteration N`), with fewer iterations from now on"
            }
            Self::Nll | Self::Kl | Self::Benchmark => {
                "read some responses; then lower the learning rate or the epochs, raise beta, or take the policy of an earlier iteration"
            }
            Self::Length => {
                "read some responses; a reward that likes length needs a term against it, and `loss: simpo` counts logprobs a token"
            }
            Self::Truncated => "raise max_new_tokens, or let truncated responses count less: `pair: { truncated: penalize }` or `drop`",
        }
    }
}

/// An alarm about one iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// The iteration.
    pub iteration: i64,
    /// The first of the iterations up to it that all have the sign.
    pub since: i64,
    /// The sign.
    pub sign: Sign,
    /// The numbers.
    pub text: String,
}

impl Alarm {
    /// The place of the alarm: the node, with the iteration if it has one.
    pub fn place(&self, node: &str) -> String {
        if self.iteration > 0 { format!("{node}, iteration {}", self.iteration) } else { node.to_string() }
    }

    /// The alarm in one line, with what to do.
    pub fn line(&self) -> String {
        let since = if self.since < self.iteration { format!(" (since iteration {})", self.since) } else { String::new() };
        format!("{}{since}; {}", self.text, self.sign.advice())
    }
}

/// The alarms of all iterations, in order.
pub fn alarms(iterations: &[Iteration]) -> Vec<Alarm> {
    let mut alarms: Vec<Alarm> = Vec::new();
    for (index, iteration) in iterations.iter().enumerate() {
        let (earlier, _) = iterations.split_at(index);
        let found = [
            reward_falls(iteration, earlier),
            nll(iteration),
            kl(iteration),
            length(iteration),
            truncated(iteration),
            benchmark(iteration),
        ];
        for (sign, text) in found.into_iter().flatten() {
            let before = earlier.last().map(|last| last.iteration);
            let last = alarms.iter().rev().find(|alarm| alarm.sign == sign && Some(alarm.iteration) == before);
            let since = last.map_or(iteration.iteration, |alarm| alarm.since);
            alarms.push(Alarm { iteration: iteration.iteration, since, sign, text });
        }
    }
    alarms
}

type Found = Option<(Sign, String)>;

/// The reward loses a part of what it had won in the best earlier iteration.
fn reward_falls(now: &Iteration, earlier: &[Iteration]) -> Found {
    let best = earlier.iter().max_by(|one, other| one.reward().total_cmp(&other.reward()))?;
    let won = best.reward() - best.mean(|prompt| prompt.baseline_reward);
    let is_large = won > 0.0 && best.reward() - now.reward() >= LOST * won;
    let fall: Vec<f64> = both(best, now).map(|(best, now)| best.reward - now.reward).collect();
    (is_large && beyond_chance(&fall)).then(|| {
        let text = format!("the held-out reward falls from {:.3} in iteration {} to {:.3}", best.reward(), best.iteration, now.reward());
        (Sign::RewardFalls, text)
    })
}

/// The reward is higher than the baseline's, and so is the NLL, by far.
fn nll(now: &Iteration) -> Found {
    let (before, after) = (now.mean(|prompt| prompt.baseline_nll), now.mean(|prompt| prompt.nll));
    let (rise, ratio) = NLL;
    let is_large = after - before >= rise && (after >= ratio * before || after - before >= ratio * rise);
    let is_sure = now.rises() && beyond_chance(&now.each(|prompt| prompt.nll - prompt.baseline_nll));
    (is_large && is_sure).then(|| {
        let what = "the NLL of the responses under the initial policy";
        (Sign::Nll, format!("{}, but {what} rises from {before:.3} to {after:.3} nats a token", now.rise()))
    })
}

/// The reward is higher than the baseline's, and the policy is far from the reference.
fn kl(now: &Iteration) -> Found {
    let divergence = now.kl? / now.mean(|prompt| prompt.tokens).max(1.0);
    (now.rises() && divergence >= KL)
        .then(|| (Sign::Kl, format!("{}, but the divergence from the reference reaches {divergence:.2} nats a token (kl)", now.rise())))
}

/// The reward is higher than the baseline's, and the lengths are others, by far.
fn length(now: &Iteration) -> Found {
    let (before, after) = (now.mean(|prompt| prompt.baseline_tokens), now.mean(|prompt| prompt.tokens));
    let (ratio, difference) = LENGTH;
    let is_large = (after - before).abs() >= difference && (after >= ratio * before || before >= ratio * after);
    let direction = (after - before).signum();
    let is_sure = now.rises() && beyond_chance(&now.each(|prompt| direction * (prompt.tokens - prompt.baseline_tokens)));
    (is_large && is_sure).then(|| {
        let verb = if after > before { "grow" } else { "shrink" };
        (Sign::Length, format!("{}, but the responses {verb} from {before:.0} to {after:.0} tokens", now.rise()))
    })
}

/// Many more responses than of the baseline are cut off.
fn truncated(now: &Iteration) -> Found {
    let (before, after) = (now.mean(|prompt| prompt.baseline_truncated), now.mean(|prompt| prompt.truncated));
    let (share, rise) = TRUNCATED;
    let is_large = after >= share && after - before >= rise;
    (is_large && beyond_chance(&now.each(|prompt| prompt.truncated - prompt.baseline_truncated))).then(|| {
        let shares = format!("from {:.0} % to {:.0} %", 100.0 * before, 100.0 * after);
        (Sign::Truncated, format!("the responses cut off by the length limit rise {shares}"))
    })
}

/// The reward is higher than the baseline's, and the primary metric of a benchmark is lower: by
/// [`BENCHMARK`], and with its whole interval.
fn benchmark(now: &Iteration) -> Found {
    let lost = |change: &&Change| change.change <= -BENCHMARK && change.high < 0.0;
    let lost: Vec<String> = now.benchmarks.iter().filter(lost).map(|change| format!("{} by {:.3}", change.name, -change.change)).collect();
    (now.rises() && !lost.is_empty()).then(|| (Sign::Benchmark, format!("{}, but benchmarks fall: {}", now.rise(), lost.join(", "))))
}

impl Iteration {
    fn each(&self, value: impl Fn(&Prompt) -> f64) -> Vec<f64> {
        self.prompts.iter().map(value).collect()
    }

    fn mean(&self, value: impl Fn(&Prompt) -> f64) -> f64 {
        self.each(value).iter().sum::<f64>() / self.prompts.len().max(1) as f64
    }

    fn reward(&self) -> f64 {
        self.mean(|prompt| prompt.reward)
    }

    /// Whether the reward is higher than the baseline's.
    fn rises(&self) -> bool {
        beyond_chance(&self.each(|prompt| prompt.reward - prompt.baseline_reward))
    }

    /// The rise of the reward in words.
    fn rise(&self) -> String {
        format!("the held-out reward rises from {:.3} to {:.3}", self.mean(|prompt| prompt.baseline_reward), self.reward())
    }
}

/// The prompts of two iterations, by their ids. Both are sorted.
fn both<'a>(one: &'a Iteration, other: &'a Iteration) -> impl Iterator<Item = (&'a Prompt, &'a Prompt)> {
    one.prompts.iter().filter_map(|prompt| {
        let place = other.prompts.binary_search_by(|found| found.id.cmp(&prompt.id)).ok()?;
        Some((prompt, other.prompts.get(place)?))
    })
}

/// Whether the mean of these differences is above 0 beyond chance.
fn beyond_chance(differences: &[f64]) -> bool {
    let count = differences.len();
    if count < FEWEST_PROMPTS {
        return false;
    }
    let mean = differences.iter().sum::<f64>() / count as f64;
    let variance = differences.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
    mean > 0.0 && mean > DEVIATIONS * (variance / count as f64).sqrt()
}
