//! Elementwise and row-wise kernels: norms, activations, rotations, softmax. Knows nothing of
//! products or models.

use pulp::{Simd, WithSimd};

use super::{LANES, arch, sum_lanes, threads};
use crate::model::Activation;

/// e^x, within 2 units in the last place; 0 below −87.3, where it would not be a normal number, and
/// infinite above 88.7.
///
/// The range is reduced by ln 2 in two pieces (Cody and Waite), the rest is a polynomial of degree
/// 6. Loops over it become vectors.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// Adding it rounds to a whole number and leaves this in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    let shifted = x.clamp(-87.3, 88.8).mul_add(LOG2_E, ROUNDER);
    let whole = shifted - ROUNDER;
    let rest = whole.mul_add(-0.693_359_4, x.clamp(-87.3, 88.8));
    let rest = whole.mul_add(2.121_944_4e-4, rest);
    let mut power = 1.390_794_6e-3_f32;
    for coefficient in [8.373_1e-3, 4.166_543e-2, 1.666_652_6e-1, 5.0e-1, 1.0, 1.0] {
        power = power.mul_add(rest, coefficient);
    }
    // 2^whole as two factors, since for the largest results it is not a number by itself.
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let (half, other) = (exponent >> 1, exponent - (exponent >> 1));
    let power_of_two = |exponent: i32| f32::from_bits(((exponent + 127) << 23) as u32);
    let result = power * power_of_two(half) * power_of_two(other);
    if x < -87.3 { 0.0 } else { result }
}

/// x / (1 + e^−x).
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The hyperbolic tangent, within some units in the last place: a polynomial around 0, beyond it
/// from [`exp`].
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut small = -5.704_988_7e-3_f32;
    for coefficient in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        small = small.mul_add(square, coefficient);
    }
    let small = (small * square).mul_add(x, x);
    let large = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { small } else { large }
}

/// √(2/π).
const ROOT: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

/// GELU with tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415).
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(ROOT * (CUBE * x * x).mul_add(x, x)))
}

/// The derivative of [`gelu_tanh`].
#[inline(always)]
pub(super) fn gelu_tanh_slope(x: f32) -> f32 {
    let tanh = tanh(ROOT * (CUBE * x * x).mul_add(x, x));
    let inner = ROOT * (3.0 * CUBE * x).mul_add(x, 1.0);
    0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner
}

/// Replaces numbers by `cap · tanh(scale · number / cap)`, or by `scale · number` without a cap.
pub fn limit(numbers: &mut [f32], scale: f32, cap: Option<f32>) {
    struct Limit<'a>(&'a mut [f32], f32, Option<f32>);
    impl WithSimd for Limit<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(numbers, scale, cap) = self;
            match cap {
                Some(cap) => numbers.iter_mut().for_each(|number| *number = cap * tanh(*number * scale / cap)),
                None => numbers.iter_mut().for_each(|number| *number *= scale),
            }
        }
    }
    threads::each(numbers.chunks_mut(threads::PIECE), |numbers: &mut [f32]| arch().dispatch(Limit(numbers, scale, cap)));
}

/// The sum of the products of two slices of one length.
#[inline(always)]
pub fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (lefts, left_rest) = left.as_chunks::<LANES>();
    let (rights, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in lefts.iter().zip(rights) {
        for lane in 0..LANES {
            lanes[lane] = left[lane].mul_add(right[lane], lanes[lane]);
        }
    }
    for ((lane, left), right) in lanes.iter_mut().zip(left_rest).zip(right_rest) {
        *lane = left.mul_add(*right, *lane);
    }
    sum_lanes(lanes)
}

/// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): each row divided by its root mean square,
/// times `weight`.
///
/// # Shapes
/// - x, out: `[rows, width]`
/// - weight: `[width]`
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    struct Norm<'a>(&'a [f32], &'a [f32], f32, &'a mut [f32]);
    impl WithSimd for Norm<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(x, weight, epsilon, out) = self;
            let width = weight.len();
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let scale = (dot(x, x) / width as f32 + epsilon).sqrt().recip();
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * scale * weight;
                }
            }
        }
    }
    if !weight.is_empty() {
        let piece = threads::rows_together(weight.len()) * weight.len();
        threads::each(x.chunks(piece).zip(out.chunks_mut(piece)), |(x, out)| arch().dispatch(Norm(x, weight, epsilon, out)));
    }
}

/// SwiGLU (Shazeer 2020, arXiv 2002.05202): `activation(gate) · up`.
///
/// # Shapes
/// - gate_up: `[rows, 2 · width]`, in each row first all gates
/// - out: `[rows, width]`
pub fn swiglu(activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
    struct SwiGlu<'a>(Activation, &'a [f32], usize, &'a mut [f32]);
    impl SwiGlu<'_> {
        #[inline(always)]
        fn each(self, activation: impl Fn(f32) -> f32) {
            let Self(_, gate_up, width, out) = self;
            for (gate_up, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                let (gate, up) = gate_up.split_at(width);
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = activation(*gate) * up;
                }
            }
        }
    }
    impl WithSimd for SwiGlu<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            match self.0 {
                Activation::Silu => self.each(silu),
                Activation::GeluTanh => self.each(gelu_tanh),
            }
        }
    }
    if width > 0 {
        let rows = threads::rows_together(2 * width);
        let pieces = gate_up.chunks(2 * width * rows).zip(out.chunks_mut(width * rows));
        threads::each(pieces, |(gate_up, out)| arch().dispatch(SwiGlu(activation, gate_up, width, out)));
    }
}

/// Turns the first part of each head of a row by the row's angles: the part's first half pairs with
/// its second half, as Hugging Face has it.
///
/// # Shapes
/// - heads: `[heads, head_dim]`, a head at least `2 · pairs` wide
/// - cosines, sines: `[pairs]`
pub fn rotate(heads: &mut [f32], head_dim: usize, cosines: &[f32], sines: &[f32]) {
    arch().dispatch(Rotate(heads, head_dim, cosines, sines, 1.0));
}

/// The backward pass of [`rotate`]: the rotation in the other direction.
///
/// # Shapes
/// - by_heads: `[heads, head_dim]`, a head at least `2 · pairs` wide
/// - cosines, sines: `[pairs]`
pub fn rotate_back(by_heads: &mut [f32], head_dim: usize, cosines: &[f32], sines: &[f32]) {
    arch().dispatch(Rotate(by_heads, head_dim, cosines, sines, -1.0));
}

/// Heads, their width, cosines, sines, and the direction: 1 or −1.
struct Rotate<'a>(&'a mut [f32], usize, &'a [f32], &'a [f32], f32);

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self(heads, head_dim, cosines, sines, direction) = self;
        let pairs = cosines.len();
        for head in heads.chunks_exact_mut(head_dim.max(1)) {
            let (first, second) = head.split_at_mut(pairs);
            for ((first, second), (cosine, sine)) in first.iter_mut().zip(second).zip(cosines.iter().zip(sines)) {
                let sine = sine * direction;
                (*first, *second) = (*first * cosine - *second * sine, *second * cosine + *first * sine);
            }
        }
    }
}

/// Replaces scores by e^(score − largest) and returns the largest and the sum; divided by it they
/// are probabilities.
#[inline(always)]
pub fn softmax(scores: &mut [f32]) -> (f32, f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
        }
    }
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, score| if *score > largest { *score } else { largest });
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            lanes[lane] += chunk[lane];
        }
    }
    if !rest.is_empty() {
        // As one more chunk, where e^−∞ adds nothing: one by one they would take as long as many
        // chunks.
        let mut chunk = [f32::NEG_INFINITY; LANES];
        chunk[..rest.len()].copy_from_slice(rest);
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            lanes[lane] += chunk[lane];
        }
        rest.copy_from_slice(&chunk[..rest.len()]);
    }
    (largest, sum_lanes(lanes))
}

/// The softmax of each row.
///
/// # Shapes
/// - scores: `[rows, width]`
pub fn softmax_rows(scores: &mut [f32], width: usize) {
    struct Rows<'a>(&'a mut [f32], usize);
    impl WithSimd for Rows<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for row in self.0.chunks_exact_mut(self.1) {
                let (_, sum) = softmax(row);
                row.iter_mut().for_each(|number| *number /= sum);
            }
        }
    }
    if width > 0 {
        arch().dispatch(Rows(scores, width));
    }
}

/// The position of the largest number, the first of equals, and the number.
///
/// # Errors
/// The position of the first number that is not finite, and the number.
pub fn largest(numbers: &[f32]) -> Result<(usize, f32), (usize, f32)> {
    struct Largest<'a>(&'a [f32]);
    impl WithSimd for Largest<'_> {
        type Output = Option<(usize, f32)>;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Option<(usize, f32)> {
            let (chunks, rest) = self.0.as_chunks::<LANES>();
            let (mut largest, mut zeros) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
            for chunk in chunks {
                for lane in 0..LANES {
                    largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
                    // Stays 0 unless there is an infinity or NaN.
                    zeros[lane] += chunk[lane] * 0.0;
                }
            }
            let finite = zeros.iter().chain(rest).all(|number| number.is_finite());
            let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, number| largest.max(*number));
            finite.then(|| {
                // Chunk by chunk: a look at a whole chunk takes no longer than one at a number.
                let has_it = |chunk: &[f32; LANES]| chunk.iter().fold(false, |found, number| found | (*number == largest));
                let before = chunks.iter().take_while(|chunk| !has_it(chunk)).count() * LANES;
                (before + self.0[before..].iter().position(|number| *number == largest).unwrap_or(0), largest)
            })
        }
    }
    arch().dispatch(Largest(numbers)).ok_or_else(|| {
        let first = numbers.iter().position(|number| !number.is_finite()).unwrap_or(0);
        (first, numbers[first])
    })
}

/// How many weights have a sum of their own, see [`weigh`].
pub const WEIGHED_TOGETHER: usize = 512;

/// Replaces logits by e^((logit − largest) · inverse_temperature), and returns the sum of each
/// [`WEIGHED_TOGETHER`] of them.
pub fn weigh(logits: &mut [f32], largest: f32, inverse_temperature: f32) -> Vec<f64> {
    struct Weigh<'a>(&'a mut [f32], f32, f32);
    impl WithSimd for Weigh<'_> {
        type Output = Vec<f64>;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
            let Self(logits, largest, inverse_temperature) = self;
            let mut sums = Vec::with_capacity(logits.len().div_ceil(WEIGHED_TOGETHER));
            for logits in logits.chunks_mut(WEIGHED_TOGETHER) {
                let mut lanes = [0.0; LANES];
                let (chunks, rest) = logits.as_chunks_mut::<LANES>();
                for chunk in chunks {
                    for lane in 0..LANES {
                        chunk[lane] = exp((chunk[lane] - largest) * inverse_temperature);
                        lanes[lane] += chunk[lane];
                    }
                }
                for (logit, lane) in rest.iter_mut().zip(&mut lanes) {
                    *logit = exp((*logit - largest) * inverse_temperature);
                    *lane += *logit;
                }
                sums.push(f64::from(sum_lanes(lanes)));
            }
            sums
        }
    }
    arch().dispatch(Weigh(logits, largest, inverse_temperature))
}
