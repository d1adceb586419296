//! The tokens and the time that a run had spent after each of its iterations.
//!
//! Knows costs, not results.

use super::cost::{Cost, Time};

/// The costs of a run, each with its time.
pub struct Spending {
    /// The cost of every output.
    pub costs: Vec<Cost>,
    /// The time of each, where it is known.
    pub times: Vec<Option<Time>>,
}

impl Spending {
    /// The time of an output from the cache is that of `computed`: of the same output in another
    /// run.
    pub fn new(costs: Vec<Cost>, computed: impl Fn(&Cost) -> Option<Time>) -> Self {
        let times = costs.iter().map(|cost| if cost.reused { computed(cost) } else { Some(cost.time()) }).collect();
        Self { costs, times }
    }

    /// Tokens sampled for training, up to an iteration.
    pub fn tokens(&self, until: i64) -> f64 {
        let generated = self.costs.iter().filter(|cost| is_sampling(cost) && is_until(cost, until));
        generated.map(Cost::tokens).sum::<i64>() as f64
    }

    /// Seconds of sampling for training, up to an iteration; `None` if some are not known.
    pub fn generation_seconds(&self, until: i64) -> Option<f64> {
        self.sum(|cost| is_sampling(cost) && is_until(cost, until), |time| time.seconds)
    }

    /// Seconds of the loop without what measures its policies, up to an iteration: the part that
    /// depends on the choice of prompts.
    pub fn loop_seconds(&self, until: i64) -> Option<f64> {
        self.sum(|cost| is_loop(cost) && is_until(cost, until), |time| time.seconds)
    }

    /// The part of [`Self::loop_seconds`] in which models computed. `None` also for a run of an
    /// optune that did not write it down.
    pub fn loop_device_seconds(&self, until: i64) -> Option<f64> {
        let seconds = self.sum(|cost| is_loop(cost) && is_until(cost, until), |time| time.on_device);
        seconds.filter(|seconds| *seconds > 0.0)
    }

    /// Seconds of everything.
    pub fn all_seconds(&self) -> Option<f64> {
        self.sum(|_| true, |time| time.seconds)
    }

    fn sum(&self, counts: impl Fn(&Cost) -> bool, of: fn(Time) -> f64) -> Option<f64> {
        let both = self.costs.iter().zip(&self.times).filter(|(cost, _)| counts(cost));
        both.map(|(_, time)| time.map(of)).sum()
    }
}

fn is_sampling(cost: &Cost) -> bool {
    cost.stage == "generate"
}

fn is_loop(cost: &Cost) -> bool {
    cost.iteration.is_some() && !cost.is_measuring()
}

fn is_until(cost: &Cost, until: i64) -> bool {
    i64::from(cost.iteration.unwrap_or(0)) <= until
}
