//! two_sigma: the response whose reward is nearest to μ − 2σ of the prompt's rewards is rejected (arXiv 2502.16825): the very worst of many
//! responses is an outlier that teaches little. With few responses it is the worst.
//!
//! place = |reward − (μ − 2σ)|, σ over all responses (not n − 1), rounded to nine digits behind the point; of two as near, the worse one.

use super::{Candidate, Rejection};

/// What distances are multiplied by before they are rounded.
const DIGITS: f64 = 1e9;

pub(super) struct TwoSigma;

impl Rejection for TwoSigma {
    fn order(&self) -> &'static str {
        "round(abs(reward - (mean - 2.0 * deviation)) * 1e9), reward ASC"
    }

    fn place(&self, response: &Candidate) -> f64 {
        ((response.reward - (response.mean - 2.0 * response.deviation)).abs() * DIGITS).round()
    }

    fn by_spread(&self) -> bool {
        true
    }
}
