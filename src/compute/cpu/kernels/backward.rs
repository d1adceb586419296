//! Backward passes of the elementwise and row-wise kernels. Knows nothing of products, models or
//! losses.
//!
//! A sum over rows is one chain from the first row to the last, added to the earlier sum: rows in
//! pieces give the same bits.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::elementwise::{dot, exp, gelu_tanh, gelu_tanh_slope, silu, softmax};
use super::{arch, threads};
use crate::model::Activation;

/// Columns of one thread at a time.
const COLUMNS: usize = 64;

/// The backward pass of [`super::rms_norm`]: adds to the derivatives by `x`, and returns the scale
/// of each row.
///
/// # Shapes
/// - x, by_out, by_x: `[rows, width]`
/// - weight: `[width]`
/// - scales: `[rows]`
pub fn rms_norm_backward(x: &[f32], weight: &[f32], epsilon: f32, by_out: &[f32], by_x: &mut [f32], scales: &mut [f32]) {
    struct Norm<'a>(&'a [f32], &'a [f32], f32, &'a [f32], &'a mut [f32], &'a mut [f32]);
    impl WithSimd for Norm<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(x, weight, epsilon, by_out, by_x, scales) = self;
            let width = weight.len();
            let mut by_normed = vec![0.0; width];
            let rows = x.chunks_exact(width).zip(by_out.chunks_exact(width)).zip(by_x.chunks_exact_mut(width));
            for (((x, by_out), by_x), to) in rows.zip(scales) {
                let scale = (dot(x, x) / width as f32 + epsilon).sqrt().recip();
                *to = scale;
                for ((by_normed, by_out), weight) in by_normed.iter_mut().zip(by_out).zip(weight) {
                    *by_normed = by_out * weight;
                }
                let along = dot(&by_normed, x) * scale * scale / width as f32;
                for ((by_x, by_normed), x) in by_x.iter_mut().zip(&by_normed).zip(x) {
                    *by_x += (by_normed - along * x) * scale;
                }
            }
        }
    }
    if !weight.is_empty() {
        arch().dispatch(Norm(x, weight, epsilon, by_out, by_x, scales));
    }
}

/// `sums += Σ rows`, each column on its own.
///
/// # Shapes
/// - values: `[rows, width]`
/// - sums: `[width]`
pub fn add_column_sums(values: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    threads::each(sums.chunks_mut(COLUMNS).enumerate(), |(piece, sums): (usize, &mut [f32])| {
        let columns = piece * COLUMNS..piece * COLUMNS + sums.len();
        for row in values.chunks_exact(width) {
            sums.iter_mut().zip(&row[columns.clone()]).for_each(|(sum, value)| *sum += value);
        }
    });
}

/// `sums += Σ left · right · scale` over rows, each column on its own.
///
/// # Shapes
/// - left, right: `[rows, width]`
/// - scales: `[rows]`
/// - sums: `[width]`
pub fn add_column_sums_of_products(left: &[f32], right: &[f32], scales: &[f32], sums: &mut [f32]) {
    struct Sums<'a>(&'a [f32], &'a [f32], &'a [f32], usize, Range<usize>, &'a mut [f32]);
    impl WithSimd for Sums<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(left, right, scales, width, columns, sums) = self;
            for ((left, right), scale) in left.chunks_exact(width).zip(right.chunks_exact(width)).zip(scales) {
                let (left, right) = (&left[columns.clone()], &right[columns.clone()]);
                for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
                    *sum = (left * scale).mul_add(*right, *sum);
                }
            }
        }
    }
    let width = sums.len();
    threads::each(sums.chunks_mut(COLUMNS).enumerate(), |(piece, sums): (usize, &mut [f32])| {
        let columns = piece * COLUMNS..piece * COLUMNS + sums.len();
        arch().dispatch(Sums(left, right, scales, width, columns, sums));
    });
}

/// [`super::swiglu`] of gates and ups in two slices: `out = activation(gate) · up`.
pub fn gate(activation: Activation, gates: &[f32], ups: &[f32], out: &mut [f32]) {
    struct Gate<'a>(Activation, &'a [f32], &'a [f32], &'a mut [f32]);
    impl Gate<'_> {
        #[inline(always)]
        fn each(self, activation: impl Fn(f32) -> f32) {
            let Self(_, gates, ups, out) = self;
            for ((out, gate), up) in out.iter_mut().zip(gates).zip(ups) {
                *out = activation(*gate) * up;
            }
        }
    }
    impl WithSimd for Gate<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            match self.0 {
                Activation::Silu => self.each(silu),
                Activation::GeluTanh => self.each(gelu_tanh),
            }
        }
    }
    arch().dispatch(Gate(activation, gates, ups, out));
}

/// The backward pass of [`gate`]: gates and ups become the derivatives by them.
pub fn gate_backward(activation: Activation, gates: &mut [f32], ups: &mut [f32], by_out: &[f32]) {
    struct Gate<'a>(Activation, &'a mut [f32], &'a mut [f32], &'a [f32]);
    impl Gate<'_> {
        /// `activation` returns its value and its slope.
        #[inline(always)]
        fn each(self, activation: impl Fn(f32) -> (f32, f32)) {
            let Self(_, gates, ups, by_out) = self;
            for ((gate, up), by_out) in gates.iter_mut().zip(ups).zip(by_out) {
                let (activated, slope) = activation(*gate);
                (*gate, *up) = (by_out * *up * slope, by_out * activated);
            }
        }
    }
    impl WithSimd for Gate<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            match self.0 {
                Activation::Silu => self.each(|gate| {
                    let sigmoid = 1.0 / (1.0 + exp(-gate));
                    let silu = gate * sigmoid;
                    (silu, (silu * (1.0 - sigmoid)) + sigmoid)
                }),
                Activation::GeluTanh => self.each(|gate| (gelu_tanh(gate), gelu_tanh_slope(gate))),
            }
        }
    }
    arch().dispatch(Gate(activation, gates, ups, by_out));
}

/// The backward pass of [`super::limit`], from its output `limited`: derivatives by the output
/// become those by the input.
pub fn limit_backward(by: &mut [f32], limited: &[f32], scale: f32, cap: f32) {
    struct Limit<'a>(&'a mut [f32], &'a [f32], f32, f32);
    impl WithSimd for Limit<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(by, limited, scale, cap) = self;
            for (by, limited) in by.iter_mut().zip(limited) {
                let tanh = limited / cap;
                *by *= scale * (1.0 - tanh * tanh);
            }
        }
    }
    arch().dispatch(Limit(by, limited, scale, cap));
}

/// The logprob of `target` under the softmax of `logits`, nats, and Σ e^(logit − largest); the
/// logits become e^(logit − largest).
///
/// # Panics
/// When there is no such logit.
pub fn logprob(logits: &mut [f32], target: usize) -> (f64, f32) {
    struct Softmax<'a>(&'a mut [f32]);
    impl WithSimd for Softmax<'_> {
        type Output = (f32, f32);
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
            softmax(self.0)
        }
    }
    let logit = logits[target];
    let (largest, sum) = arch().dispatch(Softmax(logits));
    (f64::from(logit) - f64::from(largest) - f64::from(sum).ln(), sum)
}

/// log Σ_v p_v² of the softmax left by [`logprob`], nats: the logprob of two equal draws.
pub fn collision(powers: &[f32], sum: f32) -> f64 {
    // The largest power is 1, so neither is 0.
    f64::from(dot(powers, powers)).ln() - 2.0 * f64::from(sum).ln()
}

/// The backward pass of [`logprob`], from its output: `powers` become the derivatives by the
/// logits, derivative · (one-hot − probabilities).
///
/// # Panics
/// When there is no such logit.
pub fn logprob_backward(powers: &mut [f32], target: usize, sum: f32, derivative: f32) {
    struct Scale<'a>(&'a mut [f32], f32);
    impl WithSimd for Scale<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            self.0.iter_mut().for_each(|number| *number *= self.1);
        }
    }
    arch().dispatch(Scale(powers, -derivative / sum));
    powers[target] += derivative;
}
