//! Work shared out among the threads of the current rayon pool. Knows nothing of what is computed.
//!
//! A product of a small model takes some microseconds, and to wake a thread takes longer: threads are kept awake for as long as there is more to come,
//! and whoever waits for the last share does not go to sleep over it.

use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rayon::Yield;

/// Numbers that are worth a thread's while, where something small is done to each.
pub(super) const PIECE: usize = 1 << 13;

/// How often a thread looks again before it lets others have the processor.
const LOOKS: usize = 1 << 8;

/// Does `work` in the current pool. Until it is done, the pool's other threads look for shares of it and do not sleep.
pub fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let over = AtomicBool::new(false);
    rayon::scope(|scope| {
        // Said even if `work` panics, or the others would look for ever.
        let _over = Over(&over);
        let here = rayon::current_thread_index();
        let over = &over;
        scope.spawn_broadcast(move |_, context| {
            // This thread does the work; it comes by here when it waits for others, who may be waiting for it.
            if Some(context.index()) != here {
                let mut waiting = Waiting::default();
                while !over.load(Ordering::Acquire) {
                    match rayon::yield_now() {
                        Some(Yield::Executed) => waiting = Waiting::default(),
                        _ => waiting.wait(),
                    }
                }
            }
        });
        work()
    })
}

/// Rows of `width` numbers that are worth a thread's while, where something small is done to each number.
pub fn rows_together(width: usize) -> usize {
    PIECE.div_ceil(width.max(1))
}

/// Hands each item to `work`, on as many threads as there are items for, and returns when all are done. Which thread gets which item is left to chance.
pub fn each<T: Send>(items: impl IntoIterator<IntoIter: ExactSizeIterator<Item = T> + Send>, work: impl Fn(T) + Sync) {
    let items = items.into_iter();
    let count = items.len();
    let threads = rayon::current_num_threads().min(count);
    if threads <= 1 {
        return items.for_each(work);
    }
    struct Done<'a>(&'a AtomicUsize);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }
    let (items, done) = (Mutex::new(items), AtomicUsize::new(0));
    let take = || {
        loop {
            // The iterators of slices that are given here do not panic, so the lock is not poisoned.
            let item = items.lock().map_or(None, |mut items| items.next());
            let Some(item) = item else { return };
            let _done = Done(&done);
            work(item);
        }
    };
    rayon::in_place_scope(|scope| {
        (1..threads).for_each(|_| scope.spawn(|_| take()));
        take();
        let mut waiting = Waiting::default();
        while done.load(Ordering::Acquire) < count {
            waiting.wait();
        }
    });
}

/// What `work` gives for each item, in their order; see [`each`].
pub fn map<T: Send, R: Send>(
    items: impl IntoIterator<IntoIter: ExactSizeIterator<Item = T> + Send>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items = items.into_iter();
    let mut results: Vec<Option<R>> = (0..items.len()).map(|_| None).collect();
    each(items.zip(&mut results), |(item, result)| *result = Some(work(item)));
    results.into_iter().flatten().collect()
}

/// A wait that is expected to be short.
#[derive(Default)]
struct Waiting {
    looks: usize,
}

impl Waiting {
    fn wait(&mut self) {
        self.looks += 1;
        match self.looks < LOOKS {
            true => spin_loop(),
            false => thread::yield_now(),
        }
    }
}
