//! Keys and values as they are kept for later positions, in f32 or bf16. Knows nothing of queries.
//!
//! Keys lie in blocks of [`BLOCK`] positions, transposed, so that a vector holds one number of each
//! of them; values lie position after position. In bf16, two numbers of a position that a head has
//! beside each other are one [`Pair`]: half the memory, and the bits that the rounded numbers have
//! in f32.

use pulp::{Simd, WithSimd};

use super::arch;
use super::bf16::round;

/// Positions in a block of keys.
pub const BLOCK: usize = 16;

/// The bits of a f32 that a bf16 has.
const UPPER: u32 = 0xffff_0000;

/// Two numbers in bf16, the first in the lower half.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair(u32);

/// What keys and values are kept as: f32 or [`Pair`].
pub trait Kept: Copy + Default + Send + Sync {
    /// Numbers in one.
    const NUMBERS: usize;

    /// What is kept of some heads' numbers: `[heads, head_dim]`, or half as many pairs of each
    /// head, rounded up.
    fn keep(numbers: &[f32], head_dim: usize, to: &mut [Self]);

    /// A vector of the first numbers, and one of the second, where there are two. There are as many
    /// as a vector has.
    fn vectors<S: Simd>(simd: S, from: &[Self]) -> [S::f32s; 2];

    /// The same of fewer; the rest is 0.
    fn part<S: Simd>(simd: S, from: &[Self]) -> [S::f32s; 2];
}

impl Kept for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn keep(numbers: &[f32], _: usize, to: &mut [Self]) {
        to.copy_from_slice(numbers);
    }

    #[inline(always)]
    fn vectors<S: Simd>(_: S, from: &[Self]) -> [S::f32s; 2] {
        [S::as_simd_f32s(from).0[0]; 2]
    }

    #[inline(always)]
    fn part<S: Simd>(simd: S, from: &[Self]) -> [S::f32s; 2] {
        [simd.partial_load_f32s(from); 2]
    }
}

impl Kept for Pair {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn keep(numbers: &[f32], head_dim: usize, to: &mut [Self]) {
        for (head, to) in numbers.chunks_exact(head_dim.max(1)).zip(to.chunks_exact_mut(head_dim.div_ceil(2).max(1))) {
            let (pairs, last) = head.as_chunks::<2>();
            for (to, [first, second]) in to.iter_mut().zip(pairs) {
                *to = Self(round(*first).to_bits() >> (u32::BITS / 2) | round(*second).to_bits() & UPPER);
            }
            for (to, last) in to[pairs.len()..].iter_mut().zip(last) {
                *to = Self(round(*last).to_bits() >> (u32::BITS / 2));
            }
        }
    }

    #[inline(always)]
    fn vectors<S: Simd>(simd: S, from: &[Self]) -> [S::f32s; 2] {
        halves(simd, S::as_simd_u32s(words(from)).0[0])
    }

    #[inline(always)]
    fn part<S: Simd>(simd: S, from: &[Self]) -> [S::f32s; 2] {
        halves(simd, simd.partial_load_u32s(words(from)))
    }
}

#[inline(always)]
#[allow(unsafe_code)]
fn words(pairs: &[Pair]) -> &[u32] {
    // SAFETY: a pair is a u32.
    unsafe { std::slice::from_raw_parts(pairs.as_ptr().cast(), pairs.len()) }
}

#[inline(always)]
fn halves<S: Simd>(simd: S, words: S::u32s) -> [S::f32s; 2] {
    let first = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(u32::BITS / 2));
    [simd.transmute_f32s_u32s(first), simd.transmute_f32s_u32s(simd.and_u32s(words, simd.splat_u32s(UPPER)))]
}

/// Keys and values of consecutive positions, of all key-value heads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a, T> {
    /// `[blocks, heads, head_dim, BLOCK]`; what lies past `length` is never looked at. Of pairs, a
    /// head has half as many, rounded up.
    pub keys: &'a [T],
    /// `[length or more, heads, head_dim]`, or half as many pairs.
    pub values: &'a [T],
    /// How many positions there are.
    pub length: usize,
}

/// Adds the keys and values of consecutive positions of one sequence to its lists, which have those
/// of `length` positions.
///
/// # Shapes
/// - rows: `[positions, width]`, which end with keys and values, `[heads, head_dim]` each
/// - keys, values: as in [`Segment`]
pub fn keep<T: Kept>(rows: &[f32], width: usize, [heads, head_dim]: [usize; 2], length: usize, keys: &mut Vec<T>, values: &mut Vec<T>) {
    arch().dispatch(Keep { rows, width, heads, head_dim, length, keys, values });
}

struct Keep<'a, T> {
    rows: &'a [f32],
    width: usize,
    heads: usize,
    head_dim: usize,
    length: usize,
    keys: &'a mut Vec<T>,
    values: &'a mut Vec<T>,
}

impl<T: Kept> WithSimd for Keep<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { rows, width, heads, head_dim, length, keys, values } = self;
        let kept = heads * head_dim.div_ceil(T::NUMBERS);
        let positions = rows.len().checked_div(width).unwrap_or(0);
        values.resize((length + positions) * kept, T::default());
        keys.resize((length + positions).div_ceil(BLOCK) * kept * BLOCK, T::default());
        let mut column = vec![T::default(); kept];
        let rows = rows.chunks_exact(width.max(1)).map(|row| row[width - 2 * heads * head_dim..].split_at(heads * head_dim));
        for (position, (key, value)) in (length..).zip(rows) {
            T::keep(value, head_dim, &mut values[position * kept..][..kept]);
            T::keep(key, head_dim, &mut column);
            let block = &mut keys[position / BLOCK * kept * BLOCK..][..kept * BLOCK];
            for (row, number) in block.as_chunks_mut::<BLOCK>().0.iter_mut().zip(&column) {
                row[position % BLOCK] = *number;
            }
        }
    }
}
