//! The seconds that the models of a task compute, apart from loading, tokenizing and writing.
//!
//! Knows neither models nor devices. On a GPU the numbers of a computation come back to the CPU
//! before its end, so its end is not before the device's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sum of durations.
#[derive(Debug, Default)]
pub struct DeviceTime {
    nanoseconds: AtomicU64,
}

impl DeviceTime {
    /// Adds the duration of `work`.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(start.elapsed());
        done
    }

    /// Adds a duration measured elsewhere.
    pub fn add(&self, duration: Duration) {
        // 584 years fit.
        let spent = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(spent, Ordering::Relaxed);
    }

    /// The sum in seconds; `None` without any work.
    pub fn seconds(&self) -> Option<f64> {
        let spent = self.nanoseconds.load(Ordering::Relaxed);
        (spent > 0).then(|| spent as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn measured_work_adds_up_and_nothing_is_none() {
        let time = DeviceTime::default();
        assert_eq!(time.seconds(), None);
        assert_eq!((1..=2).map(|number| time.measure(|| number * 2)).sum::<i32>(), 6);
        (0..2).for_each(|_| time.measure(|| sleep(Duration::from_millis(10))));
        assert!(time.seconds().unwrap() >= 0.02);
    }
}
