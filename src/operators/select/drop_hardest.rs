//! drop_hardest: as lowest_reward, without the floor(share·N) prompts of lowest reward, which the policy may not be able to learn from yet.
//!
//! key(p) = statistic of the rewards of p's responses in the pool, ascending; the first floor(share·N) ranks are left out, or fewer where
//! ceil(ratio·N) prompts would not be left. A prompt without any reward counts among the hardest.

use super::Rule;
use crate::pipeline::spec::select::DropHardest;

impl Rule for DropHardest {
    fn dropped(&self) -> f64 {
        self.share
    }
}
