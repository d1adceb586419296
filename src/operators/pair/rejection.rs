//! The rules for the rejected response: the formula, the source and the code of each.
//!
//! Candidates are the responses with a lower reward than the chosen one. A rule gives each
//! candidate a rank, and the candidate with the least rank is rejected. Ties go to the lower
//! reward, then to the first by response_index, then sampled_iteration. `reference_sql` has the
//! same formulas as SQL.

use crate::operators::support::rng;
use crate::operators::support::running_spread::Spread;
use crate::pipeline::spec::pair::Rejected;

/// A response with a lower reward than the chosen one.
pub(super) struct Candidate<'a> {
    /// Its prompt.
    pub(super) prompt_id: &'a str,
    /// Its response_index.
    pub(super) response_index: i32,
    /// Its reward.
    pub(super) reward: f64,
    /// Mean and standard deviation of all rewards of the prompt; zeros unless the rule needs them.
    pub(super) spread: Spread,
    /// The source of its random number.
    pub(super) stream: rng::Stream,
}

/// A rule for the rejected response.
pub(super) trait RejectionRule {
    /// The rank of a candidate; the least is rejected.
    fn rank(&self, candidate: &Candidate) -> f64;

    /// Whether the rank depends on the spread of the prompt's rewards.
    fn needs_spread(&self) -> bool {
        false
    }
}

/// The rule of a setting.
pub(super) fn rejection_rule(rejected: Rejected) -> &'static dyn RejectionRule {
    match rejected {
        Rejected::Worst => &Worst,
        Rejected::Random => &Random,
        Rejected::TwoSigma => &TwoSigma,
    }
}

/// # `worst`
///
/// Rejects the response with the lowest reward, like OPTune (arXiv 2406.07657) and most work on
/// preferences.
///
/// rank = reward.
struct Worst;

impl RejectionRule for Worst {
    fn rank(&self, candidate: &Candidate) -> f64 {
        candidate.reward
    }
}

/// # `random`
///
/// Rejects a random candidate. If each prompt has all its sampled responses in the pool, this is
/// the common choice "best against random".
///
/// rank = draw(seed, t, prompt_id, response_index), uniform.
struct Random;

impl RejectionRule for Random {
    fn rank(&self, candidate: &Candidate) -> f64 {
        candidate.stream.draw_response(candidate.prompt_id, candidate.response_index) as f64
    }
}

/// # `two_sigma`
///
/// Rejects the candidate with the reward nearest to μ − 2σ of the prompt's rewards (arXiv
/// 2502.16825): the worst of many responses is an outlier and teaches little. With few responses,
/// this is the worst.
///
/// rank = |reward − (μ − 2σ)|, rounded to nine decimal places. σ is over all responses of the
/// prompt, divided by n, not by n − 1.
struct TwoSigma;

impl RejectionRule for TwoSigma {
    fn rank(&self, candidate: &Candidate) -> f64 {
        let target = candidate.spread.mean - 2.0 * candidate.spread.deviation;
        ((candidate.reward - target).abs() * DISTANCE_SCALE).round()
    }

    fn needs_spread(&self) -> bool {
        true
    }
}

/// The factor before distances are rounded: nine decimal places.
pub(super) const DISTANCE_SCALE: f64 = 1e9;
