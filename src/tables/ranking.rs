//! Ranking: the rewards of a reward model on held-out preferences, one row a preference.

use super::check::{finite, finite_or_null, not_empty};

table! {
    Ranking, version 1, key [preference_id];
    /// One held-out preference.
    pub struct Row {
        /// The preference: its prompt's id, followed by `#2` and so on for further preferences of
        /// one prompt.
        pub preference_id: String,
        /// The reward of the response to prefer.
        pub reward_chosen: f64,
        /// The reward of the response to avoid.
        pub reward_rejected: f64,
        /// Whether the response to prefer has the higher reward. The mean over rows is the
        /// accuracy.
        pub correct: bool,
        /// By how much the response was preferred, if the preferences contain it.
        pub reward_gap: Option<f64>,
    }
}

impl View<'_> {
    /// Finite rewards, and `correct` as it follows from them.
    fn check(&self) -> Result<(), String> {
        not_empty("preference_id", self.preference_id)?;
        finite("reward_chosen", self.reward_chosen)?;
        finite("reward_rejected", self.reward_rejected)?;
        finite_or_null("reward_gap", self.reward_gap)?;
        if self.correct != (self.reward_chosen > self.reward_rejected) {
            let (chosen, rejected) = (self.reward_chosen, self.reward_rejected);
            return Err(format!("correct: expected {}, found {}: rewards {chosen} and {rejected}", !self.correct, self.correct));
        }
        Ok(())
    }
}
