//! The executors of a cluster, as the parts of a table need them.
//!
//! Knows bytes, and neither a cluster nor tasks.

/// Executors of parts in other processes.
pub trait Executors: Sync {
    /// The answer to a task, from any executor. It waits, and asks again after failures, until
    /// there is an answer or the part is `given_up`. `tell` hears of troubles.
    ///
    /// # Errors
    /// A message: no executor could be reached for a long time.
    fn ask(&self, task: &[u8], given_up: &(dyn Fn() -> bool + Sync), tell: &(dyn Fn(&str) + Sync)) -> Result<Vec<u8>, String>;

    /// The state of the cluster for people, found out within seconds.
    fn state(&self) -> String;
}
