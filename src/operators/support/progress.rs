//! What a running stage tells whoever watches. The library calls; the command line draws.

/// Something that watches a run. Calls come from several threads.
pub trait Progress: Sync {
    /// A node starts with `done` of `total` units (prompts, steps …) already committed by an earlier run.
    fn started(&self, node: &str, unit: &'static str, done: u64, total: u64);
    /// The node has `done` units; `tokens` is how many tokens it generated or trained on since it started.
    fn advanced(&self, node: &str, done: u64, tokens: u64);
    /// The node is finished; `summary` says in a few words what came out.
    fn finished(&self, node: &str, summary: &str, seconds: f64);
    /// Something the user should know that does not stop the run.
    fn warned(&self, node: &str, message: &str);
}

/// Watches nothing.
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advanced(&self, _: &str, _: u64, _: u64) {}
    fn finished(&self, _: &str, _: &str, _: f64) {}
    fn warned(&self, _: &str, _: &str) {}
}
