//! The order in which shards of a batch add to its gradients, computed at the same time.
//!
//! A backward pass goes through stages: the head, each layer from the last one on, the embedding.
//! Every parameter belongs to one stage. A shard enters a stage after all earlier shards have left
//! it. So a gradient's sum is the same chain of additions as without shards, and shards follow each
//! other through the stages. Knows nothing of gradients.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The stage of the head and of the norm before it; the layers' come behind it.
pub(super) const HEAD: usize = 0;

/// The shards of a batch on their way through the stages.
#[derive(Debug)]
pub(super) struct Turns {
    /// How many stages each shard has left; all of them at its end.
    left: Mutex<Vec<usize>>,
    changed: Condvar,
}

/// One shard's place in the order. It leaves all stages when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    shard: usize,
}

impl Turns {
    pub(super) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(vec![0; shards]), changed: Condvar::new() })
    }

    /// The turn of a shard, below their number.
    pub(super) fn of(self: &Arc<Self>, shard: usize) -> Turn {
        Turn { turns: Arc::clone(self), shard }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        // No code panics while it holds the lock.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `shard` has left all stages below `stage`.
    fn leave(&self, shard: usize, stage: usize) -> MutexGuard<'_, Vec<usize>> {
        let mut left = self.lock();
        left.iter_mut().skip(shard).take(1).for_each(|left| *left = stage);
        self.changed.notify_all();
        left
    }
}

impl Turn {
    /// Leaves all stages below this one, and waits until all earlier shards have left it.
    pub(super) fn enter(&self, stage: usize) {
        let mut left = self.turns.leave(self.shard, stage);
        while left.iter().take(self.shard).any(|left| *left <= stage) {
            left = self.turns.changed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.turns.leave(self.shard, usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;
    use std::time::Duration;

    use super::Turns;

    #[test]
    fn every_stage_is_entered_in_the_order_of_the_shards() {
        let turns = Turns::new(4);
        let entered = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for shard in (0..4).rev() {
                let (turns, entered) = (&turns, &entered);
                scope.spawn(move || {
                    let turn = turns.of(shard);
                    for stage in 0..3 {
                        // The first shard is the slowest.
                        thread::sleep(Duration::from_millis(if shard == 0 { 10 } else { 1 }));
                        turn.enter(stage);
                        entered.lock().unwrap().push((stage, shard));
                    }
                });
            }
        });
        let entered = entered.into_inner().unwrap();
        for stage in 0..3 {
            let shards: Vec<usize> = entered.iter().filter(|(entered, _)| *entered == stage).map(|(_, shard)| *shard).collect();
            assert_eq!(shards, [0, 1, 2, 3], "stage {stage}");
        }
    }

    #[test]
    fn a_shard_that_ends_early_holds_nobody_up() {
        let turns = Turns::new(2);
        drop(turns.of(0));
        turns.of(1).enter(5);
    }
}
