//! The number of selected prompts, and their ranks.
//!
//! Knows the settings, not the ranking.

use super::strategies;
use crate::pipeline::spec::select::{Select, Strategy};

/// The number of prompts to select, and of prompts to leave out at the start of the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many prompts are selected.
    pub count: usize,
    /// How many prompts are left out, or fewer if fewer than `count` would remain.
    pub dropped: usize,
}

impl Quota {
    /// ceil(ρ·N) of N prompts, and floor(share·N) for a strategy with a dropped share. Rounding
    /// errors of the products do not count: 0.1·30 is 3, so its ceiling is 3 and not 4.
    pub fn new(settings: &Select, prompts: usize, iteration: u32, has_pool: bool) -> Self {
        if settings.strategy == Strategy::All || !has_pool {
            return Self { count: prompts, dropped: 0 };
        }
        // The relative error of a product is below 2^-52. A product closer than 1e-12 to a whole
        // number is meant to be this number.
        let exact = ratio(settings, iteration) * prompts as f64;
        let count = (exact - exact * 1e-12).ceil() as usize;
        let dropped = strategies::strategy(settings).dropped_share() * prompts as f64;
        let dropped = (dropped + dropped * 1e-12).floor() as usize;
        Self { count: count.clamp(usize::from(prompts > 0), prompts), dropped: dropped.min(prompts) }
    }

    /// The selected ranks. The `overdue` prompts rank first and are selected in any case; the
    /// `eligible` prompts rank behind them.
    pub(super) fn ranks(self, overdue: usize, eligible: usize) -> SelectedRanks {
        let room = self.count.saturating_sub(overdue).min(eligible);
        let first = overdue + self.dropped.min(eligible - room);
        SelectedRanks { overdue, first, room }
    }
}

/// The ranks of selected prompts: up to `overdue`, and the next `room` ranks behind `first`.
pub(super) struct SelectedRanks {
    overdue: usize,
    first: usize,
    room: usize,
}

impl SelectedRanks {
    /// Whether the prompt of a rank is selected. Ranks count from 1. Without `has_budget`, only
    /// overdue prompts are.
    pub(super) fn contains(&self, rank: usize, has_budget: bool) -> bool {
        rank <= self.overdue || (has_budget && rank > self.first && rank <= self.first + self.room)
    }
}

/// The selection ratio ρ of an iteration.
pub(super) fn ratio(settings: &Select, iteration: u32) -> f64 {
    if settings.strategy == Strategy::All {
        1.0
    } else {
        settings.ratio * settings.ratio_decay.powf(f64::from(iteration.saturating_sub(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::spec::select::DropHardest;

    #[test]
    fn the_count_is_the_exact_ceiling() {
        let quota = |ratio: f64, prompts, pool| Quota::new(&Select { ratio, ..Select::default() }, prompts, 2, pool);
        for prompts in 1..400_usize {
            for percent in 1..=100_usize {
                let expected = (percent * prompts).div_ceil(100);
                assert_eq!(quota(percent as f64 / 100.0, prompts, true).count, expected, "{percent} % of {prompts}");
            }
        }
        assert_eq!(quota(0.5, 7, false).count, 7);
        assert_eq!(quota(0.5, 0, true).count, 0);
    }

    #[test]
    fn what_is_dropped_is_the_exact_floor() {
        for prompts in 1..400_usize {
            for percent in 0..100_usize {
                let strategy = Strategy::DropHardest(DropHardest { share: percent as f64 / 100.0 });
                let quota = Quota::new(&Select { strategy, ratio: 0.5, ..Select::default() }, prompts, 2, true);
                assert_eq!(quota.dropped, percent * prompts / 100, "{percent} % of {prompts}");
            }
        }
    }

    #[test]
    fn the_ratio_decays_from_the_third_iteration_on() {
        let settings = Select { ratio: 0.8, ratio_decay: 0.5, ..Select::default() };
        let counts = [2, 3, 4, 5].map(|iteration| Quota::new(&settings, 100, iteration, true).count);
        assert_eq!(counts, [80, 40, 20, 10]);
    }
}
