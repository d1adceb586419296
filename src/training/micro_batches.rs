//! Micro-batches: pieces of a batch that go through the model one at a time on a GPU, several at a time on the processor.
//!
//! Most operations of the CPU backend run on one thread, so cores are kept busy by working on several pieces at once. Which
//! results there are, and their order, depend on the pieces alone and never on the number of cores. Knows nothing of models.

use std::sync::mpsc::sync_channel;
use std::thread;

use burn::tensor::Device;

use super::TrainingError;

/// Hands what `work` makes of each piece of `size` items (the last may be shorter) to `take`, in order.
///
/// As many pieces as there are cores are in flight, and in memory, at once when `device` is the processor; else one.
///
/// # Errors
/// When `size` is 0, or the first error of `work`; `take` has then seen what came before.
pub fn for_each<T: Sync, R: Send>(
    device: &Device,
    items: &[T],
    size: usize,
    work: impl Fn(&[T]) -> Result<R, TrainingError> + Sync,
    mut take: impl FnMut(R),
) -> Result<(), TrainingError> {
    if size == 0 {
        return Err(TrainingError::Input("micro_batch is 0, expected at least 1".to_string()));
    }
    let at_once = if *device == Device::flex() { thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let pieces: Vec<&[T]> = items.chunks(size).collect();
    let workers = at_once.min(pieces.len());
    if workers <= 1 {
        return pieces.into_iter().try_for_each(|piece| work(piece).map(&mut take));
    }
    thread::scope(|scope| {
        // Worker w takes pieces w, w + workers, ..., and waits while its last result but one has not been taken.
        let (work, pieces) = (&work, &pieces);
        let results = (0..workers).map(|worker| {
            let (sender, receiver) = sync_channel(1);
            let share = pieces.iter().skip(worker).step_by(workers);
            // Nobody receives any more after an error, which then ends the worker.
            scope.spawn(move || share.map(|piece| work(piece)).try_for_each(|result| sender.send(result)));
            receiver
        });
        let results: Vec<_> = results.collect();
        for receiver in results.iter().cycle().take(pieces.len()) {
            match receiver.recv() {
                Ok(result) => take(result?),
                // The worker panicked; leaving the scope passes that on.
                Err(_) => break,
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_until_the_first_error() {
        let items: Vec<usize> = (0..23).collect();
        let mut seen = Vec::new();
        let sum = |piece: &[usize]| match piece.contains(&20) {
            true => Err(TrainingError::Input("twenty".to_string())),
            false => Ok(piece.iter().sum::<usize>()),
        };
        let outcome = for_each(&Device::flex(), &items, 3, sum, |sum| seen.push(sum));
        assert_eq!(outcome.unwrap_err().to_string(), "twenty");
        assert_eq!(seen, [3, 12, 21, 30, 39, 48]);
    }
}
