//! The progress of a node whose parts are computed at the same time.
//!
//! Knows numbers, not what they count.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Context, Progress};

/// The units done and the tokens computed so far.
pub struct Advance<'a> {
    progress: &'a dyn Progress,
    label: String,
    done: AtomicU64,
    tokens: AtomicU64,
}

impl<'a> Advance<'a> {
    /// Tells that the node starts, with `done` of `total` units from an earlier run.
    pub fn start(context: &'a Context<'_>, unit: &'static str, done: usize, total: usize) -> Self {
        let label = context.task.label();
        context.progress.started(&label, unit, done as u64, total as u64);
        Self { progress: context.progress, label, done: AtomicU64::new(done as u64), tokens: AtomicU64::new(0) }
    }

    /// Tells that a part has computed `now` tokens so far, after `before`; returns `now`.
    pub fn observe(&self, before: usize, now: usize) -> usize {
        let more = now.saturating_sub(before) as u64;
        let tokens = self.tokens.fetch_add(more, Ordering::Relaxed) + more;
        self.progress.advanced(&self.label, self.done.load(Ordering::Relaxed), tokens);
        now.max(before)
    }

    /// Tells that a part of so many units with so many tokens is done. Of these, `observed` were
    /// told before.
    pub fn finish(&self, units: usize, tokens: u64, observed: usize) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.tokens.fetch_sub(observed as u64, Ordering::Relaxed);
        let done = self.done.fetch_add(units as u64, Ordering::Relaxed) + units as u64;
        self.progress.advanced(&self.label, done, self.tokens());
    }

    /// The tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}
