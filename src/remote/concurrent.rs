//! Bounded concurrency: a few threads take items from a list, one after the other.
//!
//! Knows nothing of what is done with an item.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::Stopped;

/// Does `work` to every item on at most `threads` threads, and hands each result with the item's index to `done`, on the calling thread and
/// in the order in which they come. Items are begun in order. No further item is begun once `stopped` answers true or `done` breaks; results of
/// those in hand still arrive.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    stopped: Stopped,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(usize, R) -> ControlFlow<()>,
) {
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            let (sender, next, ended, work) = (sender.clone(), &next, &ended, &work);
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) && !stopped() {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = items.get(index) else { return };
                    // The receiver outlives the scope.
                    let _ = sender.send((index, work(item)));
                }
            });
        }
        drop(sender);
        for (index, result) in &results {
            if !ended.load(Ordering::SeqCst) && done(index, result).is_break() {
                ended.store(true, Ordering::SeqCst);
            }
        }
    });
}

/// Does `work` to every item on at most `threads` threads. Results in the order of the items; `None` for those not begun because `stopped`
/// answered true.
pub fn in_order<T: Sync, R: Send>(items: &[T], threads: usize, stopped: Stopped, work: impl Fn(&T) -> R + Sync) -> Vec<Option<R>> {
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    each(items, threads, stopped, work, |index, result| {
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(result);
        }
        ControlFlow::Continue(())
    });
    results
}
