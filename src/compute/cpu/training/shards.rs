//! The shards of a batch, passed forward and back at the same time on replicas of the CPU, with the
//! gradients and the order of losses that they have one after the other.
//!
//! Replicas share the weights: a step only reads them. Knows nothing of what a shard is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::{panic, thread};

use super::parameter::CpuGradients;
use super::turns::Turns;
use crate::compute::cpu::kernels::{self, Memory};
use crate::compute::threads::Threads;
use crate::model::ModelError;

/// The replicas of the CPU, from one step to the next.
#[derive(Debug, Default)]
pub struct Shards {
    /// With the number of examples that each has taken; none for one replica on the threads of the
    /// caller.
    replicas: Vec<(Threads, AtomicU64)>,
}

impl Shards {
    /// Shards on replicas with these threads.
    pub fn on_replicas(threads: Vec<Threads>) -> Self {
        Self { replicas: threads.into_iter().map(|threads| (threads, AtomicU64::new(0))).collect() }
    }

    /// The most examples of a shard of a batch of `count`, so that each replica gets one; at most
    /// `most`.
    pub fn size(&self, most: usize, count: usize) -> usize {
        most.min(count.div_ceil(self.replicas.len().max(1))).max(1)
    }

    /// The number of examples that each replica has taken; empty for one replica.
    pub fn taken(&self) -> Vec<u64> {
        self.replicas.iter().map(|(_, taken)| taken.load(Ordering::Relaxed)).collect()
    }

    /// The sum of what `work` adds to the gradients for each shard, in their order. `size` is the
    /// number of examples of a shard.
    ///
    /// # Errors
    /// One of the errors of `work`.
    pub fn gradients<S: Sync>(
        &self,
        memory: &Memory,
        shards: &[S],
        size: impl Fn(&S) -> usize + Sync,
        work: impl Fn(&S, &mut CpuGradients) -> Result<(), ModelError> + Sync,
    ) -> Result<CpuGradients, ModelError> {
        let mut gradients = CpuGradients::new(memory);
        if self.replicas.len() < 2 {
            kernels::awake(|| shards.iter().try_for_each(|shard| work(shard, &mut gradients)))?;
            return Ok(gradients);
        }
        let turns = Turns::new(shards.len());
        let next = AtomicUsize::new(0);
        let take = |taken: &AtomicU64| {
            // In order, so that the first unfinished shard waits for no other.
            while let Some((number, shard)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, shards.get(at)?))) {
                work(shard, &mut gradients.of_shard(turns.of(number)))?;
                taken.fetch_add(size(shard) as u64, Ordering::Relaxed);
            }
            Ok::<(), ModelError>(())
        };
        let run = |(threads, taken): &(Threads, AtomicU64)| threads.run(|| kernels::awake(|| take(taken)));
        let run = &run;
        thread::scope(|scope| {
            let replicas: Vec<_> = self.replicas.iter().map(|replica| scope.spawn(move || run(replica))).collect();
            let outcomes = replicas.into_iter().map(|replica| replica.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
            outcomes.collect::<Vec<Result<(), ModelError>>>().into_iter().collect::<Result<(), ModelError>>()
        })?;
        Ok(gradients)
    }
}
