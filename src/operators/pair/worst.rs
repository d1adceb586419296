//! worst: the response that was rewarded least is rejected, as in OPTune (arXiv 2406.07657) and most work on preferences.

use super::{Candidate, Rejection};

pub(super) struct Worst;

impl Rejection for Worst {
    fn order(&self) -> &'static str {
        "reward ASC"
    }

    fn place(&self, response: &Candidate) -> f64 {
        response.reward
    }
}
