//! Messages of a running operator to an observer. The library calls; the command line draws.

/// An observer of a run. Calls come from several threads.
pub trait Progress: Sync {
    /// A node starts with `done` of `total` units (prompts, steps …) committed by an earlier run.
    fn started(&self, node: &str, unit: &'static str, done: u64, total: u64);
    /// The running node turns out to have `total` units.
    fn measured(&self, node: &str, total: u64);
    /// The node has `done` units. It generated or trained on `tokens` tokens since it started.
    fn advanced(&self, node: &str, done: u64, tokens: u64);
    /// The node is finished; `summary` describes its output in a few words.
    fn finished(&self, node: &str, summary: &str, seconds: f64);
    /// A problem for the user to know; the run goes on.
    fn warned(&self, node: &str, message: &str);
}

/// Ignores all messages.
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn measured(&self, _: &str, _: u64) {}
    fn advanced(&self, _: &str, _: u64, _: u64) {}
    fn finished(&self, _: &str, _: &str, _: f64) {}
    fn warned(&self, _: &str, _: &str) {}
}
