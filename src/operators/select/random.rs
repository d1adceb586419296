//! random: prompts drawn from the seed, without a look at rewards; Rdm_ρ of arXiv 2406.07657.
//!
//! key(p) = draw(seed, t, p), uniform, ascending.

use super::{Known, Rule};

pub(super) struct Random;

impl Rule for Random {
    fn key_sql(&self) -> Option<String> {
        Some("CAST(draw AS DOUBLE)".to_string())
    }

    fn key(&self, prompt: &Known) -> Option<f64> {
        Some(prompt.stream.draw(prompt.id) as f64)
    }
}
