//! The rewards of all prompts, for strategies that learn from them.
//!
//! Knows numbers, not what is learnt.

/// The rewards and lengths of the responses of all prompts.
#[derive(Default)]
pub(super) struct SeenRewards {
    rewards: Vec<f64>,
    /// The end of the rewards of each prompt with a reward.
    ends: Vec<usize>,
    tokens: i64,
}

impl SeenRewards {
    /// Adds a prompt's rewards, in any order, and the lengths of its responses.
    pub(super) fn add(&mut self, rewards: &[f64], token_counts: &[i32]) {
        if rewards.is_empty() {
            return;
        }
        self.rewards.extend_from_slice(rewards);
        self.ends.push(self.rewards.len());
        self.tokens += token_counts.iter().copied().map(i64::from).sum::<i64>();
    }

    /// All rewards.
    pub(super) fn rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// The mean length of a response, in tokens; 0 without any.
    pub(super) fn mean_tokens(&self) -> f64 {
        self.tokens as f64 / self.rewards.len().max(1) as f64
    }

    /// The rewards of each prompt with a reward.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &[f64]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.rewards[start..*end])
    }
}
