//! The order of the training examples: epochs, each in an order drawn from the seed, and their
//! division into steps.
//!
//! Knows neither the examples nor the loss.

use super::rng::Stream;

/// Examples named by an error.
const NAMED: usize = 8;

/// The division of a training into epochs and steps.
pub struct Epochs<'a> {
    /// The examples' ids; the order of each epoch is drawn from them.
    pub examples: Vec<&'a str>,
    /// Passes over all examples.
    pub epochs: u32,
    /// Examples in one step; the last step of an epoch has the rest.
    pub batch_size: usize,
}

impl Epochs<'_> {
    /// Steps in one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.examples.len().div_ceil(self.batch_size.max(1)) as u64
    }

    /// Steps in all epochs.
    pub fn total_steps(&self) -> u64 {
        self.steps_per_epoch() * u64::from(self.epochs)
    }

    /// The epoch of `step` (both from 0), and the position of its first example in that epoch's
    /// order.
    pub fn position(&self, step: u64) -> (u32, usize) {
        let steps = self.steps_per_epoch().max(1);
        ((step / steps) as u32, (step % steps) as usize * self.batch_size)
    }

    /// All examples in the order of an epoch (from 0).
    pub fn order(&self, stream: Stream, epoch: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        order.sort_by_cached_key(|row| (stream.number("shuffle", self.examples[*row], epoch), *row));
        order
    }

    /// These examples for an error: `on 12 examples (p-001, p-007, …)`.
    pub fn named(&self, rows: &[usize]) -> String {
        let ids: Vec<&str> = rows.iter().take(NAMED).map(|row| self.examples[*row]).collect();
        let more = if rows.len() > ids.len() { ", …" } else { "" };
        format!("on {} examples ({}{more})", rows.len(), ids.join(", "))
    }
}
