//! Reusable memory for numbers. Knows nothing of their meaning.
//!
//! The operating system clears new memory page by page. The vectors of a training step are large,
//! and of the same sizes in every step.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::LocalKey;

use super::threads;

/// The share of the peak (1 / 8) kept beyond the peak.
const SPARE: usize = 8;

/// Memory for buffers. A dropped buffer's memory goes to the next one. It is freed with the last
/// clone and the last buffer.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Free>>);

/// Numbers in the memory of a [`Memory`].
#[derive(Debug)]
pub struct Buffer {
    numbers: Vec<f32>,
    length: usize,
    memory: Memory,
}

/// The free memory, and counts of all memory.
#[derive(Debug, Default)]
struct Free {
    /// Longest not used first.
    free: Vec<Vec<f32>>,
    free_numbers: usize,
    used_numbers: usize,
    /// The most numbers in use at once so far.
    peak_numbers: usize,
}

impl Free {
    /// The smallest memory for `length` numbers, unless it is more than twice too large.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let fitting = self.free.iter().enumerate().filter(|(_, numbers)| (length..=2 * length).contains(&numbers.len()));
        let (place, _) = fitting.min_by_key(|(_, numbers)| numbers.len())?;
        let numbers = self.free.remove(place);
        self.free_numbers -= numbers.len();
        Some(numbers)
    }

    /// Counts `numbers` more in use, and returns the free memory beyond the limit.
    fn count(&mut self, numbers: usize) -> Vec<Vec<f32>> {
        self.used_numbers += numbers;
        self.peak_numbers = self.peak_numbers.max(self.used_numbers);
        let most = (self.peak_numbers + self.peak_numbers / SPARE).saturating_sub(self.used_numbers);
        let mut excess = 0;
        while self.free_numbers > most && excess < self.free.len() {
            self.free_numbers -= self.free[excess].len();
            excess += 1;
        }
        self.free.drain(..excess).collect()
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Free> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `length` numbers of no meaning, to be written before they are read.
    pub fn any(&self, length: usize) -> Buffer {
        let mut free = self.lock();
        let used = free.take(length);
        let excess = free.count(used.as_ref().map_or(length, Vec::len));
        drop(free);
        drop(excess);
        let numbers = used.unwrap_or_else(|| vec![0.0; length]);
        let mut buffer = Buffer { numbers, length, memory: self.clone() };
        if cfg!(debug_assertions) {
            buffer.fill(f32::NAN);
        }
        buffer
    }

    /// `length` zeros.
    pub fn zeros(&self, length: usize) -> Buffer {
        let mut buffer = self.any(length);
        threads::each(buffer.chunks_mut(threads::PIECE), |numbers: &mut [f32]| numbers.fill(0.0));
        buffer
    }

    /// The same numbers again.
    pub fn copied(&self, numbers: &[f32]) -> Buffer {
        let mut buffer = self.any(numbers.len());
        let pieces = buffer.chunks_mut(threads::PIECE).zip(numbers.chunks(threads::PIECE));
        threads::each(pieces, |(to, from)| to.copy_from_slice(from));
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        let mut free = self.memory.lock();
        free.used_numbers -= numbers.len();
        free.free_numbers += numbers.len();
        free.free.push(numbers);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.length]
    }
}

/// So many numbers of memory, whatever they are.
pub(super) fn grown<T: Clone + Default>(memory: &mut Vec<T>, count: usize) -> &mut [T] {
    if memory.len() < count {
        memory.resize(count, T::default());
    }
    &mut memory[..count]
}

/// Calls `work` with memory of this thread that is used again and again, whatever is in it.
pub(super) fn with_memory<T, R>(memory: &'static LocalKey<Cell<Vec<T>>>, work: impl FnOnce(&mut Vec<T>) -> R) -> R {
    // Taken, since this thread may come by again while it waits for others in `work`.
    let mut taken = memory.take();
    let result = work(&mut taken);
    memory.set(taken);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_what_was_in_use() {
        let memory = Memory::default();
        for round in 1..200 {
            let buffers: Vec<Buffer> = (1..10).map(|size| memory.any(size * 1000 + round * 37)).collect();
            assert!(buffers.iter().enumerate().all(|(at, buffer)| buffer.len() == (at + 1) * 1000 + round * 37));
            let free = memory.lock();
            assert!(free.used_numbers + free.free_numbers <= free.peak_numbers + free.peak_numbers / SPARE);
        }
    }

    #[test]
    fn zeros_are_zeros_in_memory_that_was_used() {
        let memory = Memory::default();
        memory.copied(&[1.0; 5000]);
        assert!(memory.zeros(4000).iter().all(|number| *number == 0.0));
    }
}
