//! Mean and standard deviation in one pass, by Welford's algorithm.
//!
//! Results depend on the order of the numbers in the last bits. Callers keep a fixed order, so
//! results are reproducible.

/// Mean and population standard deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation: divided by n, not by n − 1.
    pub deviation: f64,
}

/// The sums over the numbers so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningSpread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl RunningSpread {
    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        self.count += 1.0;
        let distance = number - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (number - self.mean);
    }

    /// The spread of the numbers so far; zeros without any.
    pub fn spread(&self) -> Spread {
        Spread { mean: self.mean, deviation: (self.squares / self.count.max(1.0)).sqrt() }
    }
}
