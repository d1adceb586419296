//! Memory for numbers that is used again. Knows nothing of what the numbers are.
//!
//! Memory that is new has to be cleared by the kernel, page by page, and the vectors of a training step are large and the same in every step.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::threads;

/// What is kept: at most so much more than what was in use at once, as a share of it (1 / 8).
const SPARE: usize = 8;

/// Numbers, in memory that another one had before, or new. It goes to the next one if somebody has [`KeptMemory`].
#[derive(Debug)]
pub struct Buffer {
    numbers: Vec<f32>,
    length: usize,
}

/// As long as one of these lives, the memory of buffers that are done with is kept for others.
#[derive(Debug)]
pub struct KeptMemory(());

/// All memory of buffers.
struct Kept {
    holders: usize,
    /// Free, longest not used first.
    free: Vec<Vec<f32>>,
    free_numbers: usize,
    used_numbers: usize,
    /// The most numbers that were in use at once.
    peak_numbers: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { holders: 0, free: Vec::new(), free_numbers: 0, used_numbers: 0, peak_numbers: 0 });

fn kept() -> MutexGuard<'static, Kept> {
    // Nothing that is done with it panics halfway.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeptMemory {
    /// Memory is kept from now on.
    pub fn new() -> Self {
        kept().holders += 1;
        Self(())
    }
}

impl Default for KeptMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for KeptMemory {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl Drop for KeptMemory {
    fn drop(&mut self) {
        let mut kept = kept();
        kept.holders -= 1;
        if kept.holders == 0 {
            kept.free_numbers = 0;
            kept.peak_numbers = kept.used_numbers;
            let free = std::mem::take(&mut kept.free);
            drop(kept);
            drop(free);
        }
    }
}

impl Kept {
    /// The smallest that holds `length` numbers, unless it is more than twice too large.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let fitting = self.free.iter().enumerate().filter(|(_, numbers)| (length..=2 * length).contains(&numbers.len()));
        let (place, _) = fitting.min_by_key(|(_, numbers)| numbers.len())?;
        let numbers = self.free.remove(place);
        self.free_numbers -= numbers.len();
        Some(numbers)
    }

    /// Counts `numbers` more in use, and returns what is now too much to be kept.
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

impl Buffer {
    /// `length` numbers, whatever they are: for what is written before it is read.
    pub fn any(length: usize) -> Self {
        let mut kept = kept();
        let used = kept.take(length);
        let excess = kept.count(used.as_ref().map_or(length, Vec::len));
        drop(kept);
        drop(excess);
        let numbers = used.unwrap_or_else(|| vec![0.0; length]);
        let mut buffer = Self { numbers, length };
        if cfg!(debug_assertions) {
            buffer.fill(f32::NAN);
        }
        buffer
    }

    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        let mut buffer = Self::any(length);
        threads::each(buffer.chunks_mut(threads::PIECE), |numbers: &mut [f32]| numbers.fill(0.0));
        buffer
    }

    /// The same numbers again.
    pub fn copied(numbers: &[f32]) -> Self {
        let mut buffer = Self::any(numbers.len());
        let pieces = buffer.chunks_mut(threads::PIECE).zip(numbers.chunks(threads::PIECE));
        threads::each(pieces, |(to, from)| to.copy_from_slice(from));
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        let mut kept = kept();
        kept.used_numbers -= numbers.len();
        if kept.holders > 0 {
            kept.free_numbers += numbers.len();
            kept.free.push(numbers);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_what_was_in_use() {
        let memory = KeptMemory::new();
        for round in 1..200 {
            let buffers: Vec<Buffer> = (1..10).map(|size| Buffer::any(size * 1000 + round * 37)).collect();
            assert!(buffers.iter().enumerate().all(|(at, buffer)| buffer.len() == (at + 1) * 1000 + round * 37));
            let kept = kept();
            assert!(kept.used_numbers + kept.free_numbers <= kept.peak_numbers + kept.peak_numbers / SPARE);
        }
        drop(memory);
    }

    #[test]
    fn zeros_are_zeros_in_memory_that_was_used() {
        let _memory = KeptMemory::new();
        Buffer::copied(&[1.0; 5000]);
        assert!(Buffer::zeros(4000).iter().all(|number| *number == 0.0));
    }
}
