//! The threads of a replica on the CPU: a share of this process's. Knows nothing of their work.

use crate::model::ModelError;

/// Threads for the work of one replica.
#[derive(Debug)]
pub struct Threads(rayon::ThreadPool);

impl Threads {
    /// The threads of so many replicas: an equal share each, at least one.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn shares(replicas: usize) -> Result<Vec<Self>, ModelError> {
        let share = (rayon::current_num_threads() / replicas.max(1)).max(1);
        let failed = |error| ModelError::Device(format!("cannot start the threads of a replica: {error}"));
        let threads = |_| rayon::ThreadPoolBuilder::new().num_threads(share).build().map(Self).map_err(failed);
        (0..replicas).map(threads).collect()
    }

    /// Does `work` on these threads, beside the caller, who waits.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.install(work)
    }
}
