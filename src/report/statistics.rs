//! Histograms, and curves with fewer points, beside means with their intervals. Knows numbers only.

pub use crate::statistics::{Interval, mean, quantile};

/// Counts in `bins` of equal width from `low` to `high`, each as (from, to, count). The last bin
/// has its upper end.
pub fn histogram(values: &[f64], low: f64, high: f64, bins: usize) -> Vec<(f64, f64, u64)> {
    let width = if high > low { (high - low) / bins as f64 } else { 1.0 };
    let mut counts = vec![0; bins];
    for value in values {
        let bin = (((value - low) / width) as usize).min(bins - 1);
        if let Some(count) = counts.get_mut(bin) {
            *count += 1;
        }
    }
    let edge = |bin: usize| low + width * bin as f64;
    counts.into_iter().enumerate().map(|(bin, count)| (edge(bin), edge(bin + 1), count)).collect()
}

/// At most `most` rows in the place of many: equal stretches of rows, by their index. A single row
/// stays as it is.
pub fn stretches(rows: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let parts = rows.min(most.max(1));
    (0..parts).map(move |part| part * rows / parts..(part + 1) * rows / parts)
}
