//! One optimizer step on a parameter's numbers, in place, and sums over gradients. Knows nothing of
//! models or schedules.

use pulp::{Simd, WithSimd};

use super::{LANES, arch, threads};
use crate::compute::update::{AdamW, RmsProp};

/// Numbers of one thread at a time.
const PIECE: usize = 1 << 15;

/// Steps all `weights`, and the running means of gradients and of their squares.
///
/// # Panics
/// When the slices are of different lengths.
pub fn adam_w(rule: AdamW, weights: &mut [f32], gradients: &[f32], means: &mut [f32], squares: &mut [f32]) {
    struct Step<'a>(AdamW, &'a mut [f32], &'a [f32], &'a mut [f32], &'a mut [f32]);
    impl WithSimd for Step<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(rule, weights, gradients, means, squares) = self;
            let [beta_1, gain_1, beta_2, gain_2] =
                [rule.beta_1, 1.0 - rule.beta_1, rule.beta_2, 1.0 - rule.beta_2].map(|factor| factor as f32);
            let [root_correction_2, eps, rate, kept] = [rule.root_correction_2, rule.eps, rule.rate, rule.kept].map(|factor| factor as f32);
            for (((weight, gradient), mean), square) in weights.iter_mut().zip(gradients).zip(means).zip(squares) {
                *mean = *mean * beta_1 + gradient * gain_1;
                *square = *square * beta_2 + gradient * gradient * gain_2;
                let scale = square.sqrt() / root_correction_2 + eps;
                *weight = *weight * kept - *mean / scale * rate;
            }
        }
    }
    assert!(
        [gradients.len(), means.len(), squares.len()] == [weights.len(); 3],
        "expected a gradient, a mean and a square for each of {} weights",
        weights.len()
    );
    let pieces = weights.chunks_mut(PIECE).zip(gradients.chunks(PIECE)).zip(means.chunks_mut(PIECE)).zip(squares.chunks_mut(PIECE));
    threads::each(pieces, |(((weights, gradients), means), squares)| arch().dispatch(Step(rule, weights, gradients, means, squares)));
}

/// Steps all `weights`, and the running means of squared gradients.
///
/// # Panics
/// When the slices are of different lengths.
pub fn rms_prop(rule: RmsProp, weights: &mut [f32], gradients: &[f32], squares: &mut [f32]) {
    struct Step<'a>(RmsProp, &'a mut [f32], &'a [f32], &'a mut [f32]);
    impl WithSimd for Step<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(rule, weights, gradients, squares) = self;
            let [alpha, gain, eps, rate, weight_decay] =
                [rule.alpha, 1.0 - rule.alpha, rule.eps, rule.rate, rule.weight_decay].map(|factor| factor as f32);
            for ((weight, gradient), square) in weights.iter_mut().zip(gradients).zip(squares) {
                let gradient = gradient + *weight * weight_decay;
                *square = *square * alpha + gradient * gradient * gain;
                *weight -= gradient / (square.sqrt() + eps) * rate;
            }
        }
    }
    assert!(
        [gradients.len(), squares.len()] == [weights.len(); 2],
        "expected a gradient and a square for each of {} weights",
        weights.len()
    );
    let pieces = weights.chunks_mut(PIECE).zip(gradients.chunks(PIECE)).zip(squares.chunks_mut(PIECE));
    threads::each(pieces, |((weights, gradients), squares)| arch().dispatch(Step(rule, weights, gradients, squares)));
}

/// Multiplies all `values`.
pub fn scale(values: &mut [f32], factor: f32) {
    threads::each(values.chunks_mut(PIECE), |values: &mut [f32]| values.iter_mut().for_each(|value| *value *= factor));
}

/// Σ value², summed in f64. The order depends on the length alone.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    struct Squares<'a>(&'a [f32]);
    impl WithSimd for Squares<'_> {
        type Output = f64;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> f64 {
            let mut lanes = [0.0_f64; LANES];
            let (chunks, rest) = self.0.as_chunks::<LANES>();
            for chunk in chunks {
                for lane in 0..LANES {
                    let value = f64::from(chunk[lane]);
                    lanes[lane] = value.mul_add(value, lanes[lane]);
                }
            }
            rest.iter().zip(&mut lanes).for_each(|(value, lane)| *lane += f64::from(*value) * f64::from(*value));
            lanes.iter().sum()
        }
    }
    let sums = threads::map(values.chunks(PIECE), |values| arch().dispatch(Squares(values)));
    sums.iter().sum()
}
