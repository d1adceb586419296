//! random: a response drawn from the seed, the prompt and its response_index is rejected, of those that are rewarded less than the chosen one; with
//! as many as were sampled this is the common best against random.

use super::{Candidate, Rejection};

pub(super) struct Random;

impl Rejection for Random {
    fn order(&self) -> &'static str {
        "CAST(draw AS DOUBLE)"
    }

    fn place(&self, response: &Candidate) -> f64 {
        response.stream.draw_response(response.prompt_id, response.response_index) as f64
    }
}
