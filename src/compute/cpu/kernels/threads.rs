//! Work shared out among the threads of the current rayon pool. Knows nothing of the work.
//!
//! A product of a small model takes some microseconds, and to wake a thread takes longer. So
//! threads stay awake while more work is to come, and sleep only after a long wait.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rayon::Yield;

/// Numbers of one thread, at least, for cheap work on each.
pub const PIECE: usize = 1 << 13;

/// How often a thread looks again before it lets others have the CPU.
const LOOKS: usize = 1 << 8;

/// How long a thread yields before it sleeps: longer than the work between two products.
const YIELDING: Duration = Duration::from_millis(1);

/// The sleep of a waiting thread, until it looks again.
const NAP: Duration = Duration::from_micros(50);

/// Does `work` in the current pool. Until it is done, the pool's other threads look for shares of
/// it and do not sleep.
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
            // This thread does the work. It comes here while it waits for others; they may be
            // waiting for it.
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

/// Rows of `width` numbers for one thread, at least, for cheap work on each number.
pub fn rows_together(width: usize) -> usize {
    PIECE.div_ceil(width.max(1))
}

/// Hands each item to `work`, on as many threads as there are items for, and returns when all are
/// done.
///
/// Every thread begins with a range of its own and goes through it in order, so that what lies one
/// after the other in memory is read by one thread; who is done with it takes the last items of
/// others.
pub fn each<T: Send>(items: impl IntoIterator<IntoIter: ExactSizeIterator<Item = T> + Send>, work: impl Fn(T) + Sync) {
    let mut items = items.into_iter();
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
    let range = |thread: usize| Mutex::new(items.by_ref().take((thread + 1) * count / threads - thread * count / threads).collect());
    let ranges: Vec<Mutex<VecDeque<T>>> = (0..threads).map(range).collect();
    let done = AtomicUsize::new(0);
    let take = |thread: usize| {
        let others = || (1..threads).map(|past| &ranges[(thread + past) % threads]);
        loop {
            // No code panics while it holds a range.
            let own = ranges[thread].lock().ok().and_then(|mut range| range.pop_front());
            let item = own.or_else(|| others().find_map(|range| range.lock().ok()?.pop_back()));
            let Some(item) = item else { return };
            let _done = Done(&done);
            work(item);
        }
    };
    rayon::in_place_scope(|scope| {
        let take = &take;
        (1..threads).for_each(|thread| scope.spawn(move |_| take(thread)));
        take(0);
        let mut waiting = Waiting::default();
        while done.load(Ordering::Acquire) < count {
            waiting.wait();
        }
    });
}

/// The results of `work` for each item, in their order; see [`each`].
pub fn map<T: Send, R: Send>(
    items: impl IntoIterator<IntoIter: ExactSizeIterator<Item = T> + Send>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items = items.into_iter();
    let mut results: Vec<Option<R>> = (0..items.len()).map(|_| None).collect();
    each(items.zip(&mut results), |(item, result)| *result = Some(work(item)));
    results.into_iter().flatten().collect()
}

/// A wait, short as a rule.
#[derive(Default)]
struct Waiting {
    looks: usize,
    yields_since: Option<Instant>,
}

impl Waiting {
    fn wait(&mut self) {
        self.looks += 1;
        if self.looks < LOOKS {
            return spin_loop();
        }
        // The expected thread may wait for a CPU itself. A thread that only yields uses up its own
        // share of a busy machine, and gets its next turn late; a thread that sleeps does not.
        match self.yields_since {
            Some(since) if since.elapsed() > YIELDING => thread::sleep(NAP),
            Some(_) => thread::yield_now(),
            None => {
                self.yields_since = Some(Instant::now());
                thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn every_item_is_worked_on_once_and_results_keep_their_order() {
        for threads in [1, 2, 5] {
            for count in [0, 1, 2, 7, 1000] {
                let square = || map(0..count, |number| number * number);
                let (asleep, awake) = with_threads(threads, || (square(), awake(square)));
                assert_eq!(asleep, (0..count).map(|number| number * number).collect::<Vec<usize>>(), "{threads} threads");
                assert_eq!(awake, asleep, "{threads} threads, awake");
            }
        }
    }

    #[test]
    fn work_within_work_and_from_outside_ends() {
        let nested = || awake(|| map(0..20_usize, |outer| map(0..20_usize, |inner| outer * inner).into_iter().sum::<usize>()));
        let expected: Vec<usize> = (0..20).map(|outer| outer * 190).collect();
        for threads in [1, 3] {
            assert_eq!(with_threads(threads, nested), expected);
        }
        // Two at once, on one pool.
        let both = thread::scope(|scope| [scope.spawn(nested), scope.spawn(nested)].map(|thread| thread.join().unwrap()));
        assert_eq!(both, [expected.clone(), expected]);
    }

    #[test]
    fn a_panic_reaches_whoever_asked() {
        for threads in [1, 2, 5] {
            let work = || awake(|| each(0..100, |number| assert_ne!(number, 50)));
            let caught = with_threads(threads, || catch_unwind(AssertUnwindSafe(work)));
            assert!(caught.is_err(), "{threads} threads");
        }
    }
}
