//! Bounded concurrency: a few threads take items from a list, one after the other.
//!
//! Knows nothing of the work on an item.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::stop::Stopped;

/// The most simultaneous requests to a server.
const MOST_THREADS: usize = 1024;

/// Does `work` to every item on at most `threads` threads. Hands each result with the item's index
/// to `done`, on the calling thread and in the order of completion. Items are begun in order. No
/// further item is begun once `stopped` answers true or `done` breaks; results of those in hand
/// still arrive. A thread goes on once its result was taken: at most `threads` results wait for
/// `done`.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    stopped: Stopped,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(usize, R) -> ControlFlow<()>,
) {
    let next = AtomicUsize::new(0);
    let ended = AtomicBool::new(false);
    // Without a buffer: results waiting for a slow `done` would be lost with the process.
    let (sender, results) = mpsc::sync_channel(0);
    std::thread::scope(|scope| {
        // In here, so that a panic of `done` lets the threads go.
        let results = results;
        for _ in 0..threads.clamp(1, items.len().max(1)).min(MOST_THREADS) {
            let sender = sender.clone();
            let next = &next;
            let ended = &ended;
            let work = &work;
            let worker = move || {
                while !ended.load(Ordering::SeqCst) && !stopped() {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = items.get(index) else { return };
                    if sender.send((index, work(item))).is_err() {
                        return;
                    }
                }
            };
            // If the system gives no more threads, the existing ones do the work.
            if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        drop(sender);
        for (index, result) in &results {
            if !ended.load(Ordering::SeqCst) && done(index, result).is_break() {
                ended.store(true, Ordering::SeqCst);
            }
        }
    });
}

/// Does `work` to every item on at most `threads` threads. Results in the order of the items;
/// `None` for those not begun because `stopped` answered true.
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
