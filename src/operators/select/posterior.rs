//! The beliefs behind `posterior`: how good the responses of a prompt are, and how sure that is.
//!
//! A belief is a mean and a variance on a scale from 0 to 1. The first one is the uniform
//! distribution's. Each selection forgets a share of the last belief, then learns from the rewards
//! sampled since:
//!
//! - `beta`: rewards from 0 to 1 are successes and failures of a Beta distribution (MoPPS, arXiv
//!   2507.04632).
//! - `kalman`: a reward counts as its quantile among all rewards. A Kalman filter weighs the mean
//!   of n new quantiles with the variance within prompts divided by n (after KGPS, arXiv
//!   2607.27610).
//!
//! Knows numbers, not tables.

use super::seen_rewards::SeenRewards;
use crate::operators::OperatorError;
use crate::pipeline::spec::select::{Posterior, PosteriorKind};

/// What is believed about the rewards of a prompt, on a scale from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Belief {
    /// The expected reward.
    pub(super) mean: f64,
    /// How far it may be off, squared.
    pub(super) variance: f64,
}

/// The uniform distribution.
const UNKNOWN: Belief = Belief { mean: 0.5, variance: 1.0 / 12.0 };

/// The least variance of a belief and of an observation: nothing is ever certain.
pub(super) const LEAST_VARIANCE: f64 = 1e-9;

/// Updates beliefs.
pub(super) struct Beliefs {
    settings: Posterior,
    /// All rewards, ascending.
    sorted: Vec<f64>,
    /// The variance of quantiles within a prompt.
    noise: f64,
}

impl Beliefs {
    /// Learns the scale from all rewards.
    ///
    /// # Errors
    /// A reward outside of 0 to 1, for `beta`.
    pub(super) fn new(seen: &SeenRewards, settings: Posterior) -> Result<Self, OperatorError> {
        if settings.kind == PosteriorKind::Beta
            && let Some(other) = seen.rewards().iter().find(|reward| !(0.0..=1.0).contains(*reward))
        {
            let problem = format!("posterior of kind beta: expected rewards from 0 to 1, found {other}; use `kind: kalman`");
            return Err(OperatorError::Input(problem));
        }
        let mut sorted = seen.rewards().to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut beliefs = Self { settings, sorted, noise: UNKNOWN.variance };
        let mut squares = 0.0;
        let mut freedom = 0;
        for rewards in seen.prompts() {
            let quantiles = beliefs.scaled(rewards);
            let mean = quantiles.iter().sum::<f64>() / quantiles.len() as f64;
            squares += quantiles.iter().map(|quantile| (quantile - mean) * (quantile - mean)).sum::<f64>();
            freedom += quantiles.len() - 1;
        }
        if freedom > 0 {
            beliefs.noise = (squares / freedom as f64).max(LEAST_VARIANCE);
        }
        Ok(beliefs)
    }

    /// The belief after these new rewards. `previous` is that of the last selection.
    pub(super) fn after(&self, previous: Option<Belief>, rewards: &[f64]) -> Belief {
        let forget = self.settings.forget;
        let Belief { mean, variance } = previous.unwrap_or(UNKNOWN);
        let rewards = self.scaled(rewards);
        let count = rewards.len() as f64;
        match self.settings.kind {
            PosteriorKind::Beta => {
                // The parameters of a Beta distribution with this mean and variance.
                let strength = mean * (1.0 - mean) / variance - 1.0;
                let kept = |parameter: f64| 1.0 + (1.0 - forget) * (parameter - 1.0);
                let successes = kept(mean * strength) + rewards.iter().sum::<f64>();
                let failures = kept((1.0 - mean) * strength) + rewards.iter().map(|reward| 1.0 - reward).sum::<f64>();
                let sum = successes + failures;
                Belief { mean: successes / sum, variance: successes * failures / (sum * sum * (sum + 1.0)) }
            }
            PosteriorKind::Kalman => {
                let variance = variance + forget * (UNKNOWN.variance - variance);
                if rewards.is_empty() {
                    return Belief { mean, variance };
                }
                let observed = rewards.iter().sum::<f64>() / count;
                let trust = variance / (variance + self.noise / count);
                Belief { mean: mean + trust * (observed - mean), variance: (variance * (1.0 - trust)).max(LEAST_VARIANCE) }
            }
        }
    }

    /// Rewards on the scale from 0 to 1, sorted: then their sum does not depend on their order.
    fn scaled(&self, rewards: &[f64]) -> Vec<f64> {
        let mut scaled: Vec<f64> = match self.settings.kind {
            PosteriorKind::Beta => rewards.to_vec(),
            PosteriorKind::Kalman => rewards.iter().map(|reward| self.quantile(*reward)).collect(),
        };
        scaled.sort_unstable_by(f64::total_cmp);
        scaled
    }

    /// The share of all rewards below a reward; those equal to it count half.
    fn quantile(&self, reward: f64) -> f64 {
        let below = self.sorted.partition_point(|other| *other < reward);
        let through = self.sorted.partition_point(|other| *other <= reward);
        (below + through) as f64 / (2 * self.sorted.len()).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beliefs(prompts: &[&[f64]], kind: PosteriorKind, forget: f64) -> Beliefs {
        let mut seen = SeenRewards::default();
        prompts.iter().for_each(|rewards| seen.add(rewards, &vec![1; rewards.len()]));
        Beliefs::new(&seen, Posterior { kind, forget, ..Posterior::default() }).unwrap()
    }

    fn close(found: Belief, mean: f64, variance: f64) {
        assert!(
            (found.mean - mean).abs() < 1e-12 && (found.variance - variance).abs() < 1e-12,
            "expected {mean}, {variance}, found {found:?}"
        );
    }

    #[test]
    fn three_successes_and_a_failure_are_a_beta_of_4_and_2() {
        let beliefs = beliefs(&[&[1.0, 1.0, 0.0, 1.0]], PosteriorKind::Beta, 0.0);
        let after = beliefs.after(None, &[1.0, 1.0, 0.0, 1.0]);
        close(after, 4.0 / 6.0, 4.0 * 2.0 / (36.0 * 7.0));
        // In two steps it is the same.
        let step = beliefs.after(Some(beliefs.after(None, &[1.0, 0.0])), &[1.0, 1.0]);
        close(step, after.mean, after.variance);
    }

    #[test]
    fn everything_forgotten_is_the_uniform_distribution() {
        for kind in [PosteriorKind::Beta, PosteriorKind::Kalman] {
            let beliefs = beliefs(&[&[1.0, 0.0]], kind, 1.0);
            let after = beliefs.after(Some(Belief { mean: 0.5, variance: 0.01 }), &[]);
            close(after, 0.5, 1.0 / 12.0);
        }
    }

    #[test]
    fn a_kalman_filter_weighs_by_variances() {
        // Quantiles 1/8, 3/8, 5/8 and 7/8. Within the prompts they differ by 1/4: a variance of
        // 1/32.
        let beliefs = beliefs(&[&[-7.0, 2.0], &[30.0, 400.0]], PosteriorKind::Kalman, 0.0);
        let trust = (1.0 / 12.0) / (1.0 / 12.0 + 1.0 / 64.0);
        close(beliefs.after(None, &[-7.0, 2.0]), 0.5 - trust * 0.25, (1.0 - trust) / 12.0);
    }

    #[test]
    fn rewards_outside_of_0_to_1_are_no_successes() {
        let mut seen = SeenRewards::default();
        seen.add(&[0.5, 1.5], &[1, 1]);
        let settings = Posterior { kind: PosteriorKind::Beta, ..Posterior::default() };
        assert!(Beliefs::new(&seen, settings).err().unwrap().to_string().contains("expected rewards from 0 to 1, found 1.5"));
    }
}
