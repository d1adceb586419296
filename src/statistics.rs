//! Means, their bootstrap intervals, and quantiles. Knows numbers only.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How often values are drawn again for an interval.
const RESAMPLES: usize = 1000;

/// A mean, and the middle 95 % of the means of values drawn again from the same ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The 2.5 % quantile of the resampled means.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
    /// How many values there are.
    pub count: usize,
}

impl Interval {
    /// The percentile bootstrap (Efron, 1979) of the mean; of a single value, the value. `seed`
    /// names the draw: the same values always have the same interval. `None` without values.
    pub fn of(values: &[f64], seed: &str) -> Option<Self> {
        let count = values.len();
        let mean = mean(values)?;
        if count == 1 {
            return Some(Self { mean, low: mean, high: mean, count });
        }
        let mut random = ChaCha8Rng::from_seed(*blake3::hash(seed.as_bytes()).as_bytes());
        let mut draw = || {
            // The high half of a product is below `count`.
            let index = (u128::from(random.next_u64()) * count as u128) >> 64;
            values.get(index as usize).copied().unwrap_or_default()
        };
        let mut means: Vec<f64> = (0..RESAMPLES).map(|_| (0..count).map(|_| draw()).sum::<f64>() / count as f64).collect();
        means.sort_by(f64::total_cmp);
        Some(Self { mean, low: quantile(&means, 0.025), high: quantile(&means, 0.975), count })
    }
}

/// The mean; `None` without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The `share` quantile of ascending values, between two values on the straight line (numpy's
/// default); 0 without values.
pub fn quantile(ascending: &[f64], share: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    let place = share * last as f64;
    let at = |index: usize| ascending.get(index.min(last)).copied().unwrap_or_default();
    let low = at(place as usize);
    let high = at(place as usize + 1);
    low + (high - low) * place.fract()
}
