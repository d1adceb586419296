//! Numbers rounded to bf16. Knows nothing of where they go.
//!
//! Integer arithmetic only, in loops for compilers to turn into vectors: the same bits everywhere.
//! Loops and no closures: a closure, and what the standard library calls with one, may be compiled
//! without the vectors of the function around it.

use super::blocks::{BLOCK, PAIRS};
use crate::compute::cpu::kernels::panel::{PANEL, transpose_four};

/// The bits of half a f32.
const HALF: u32 = u16::BITS;

/// The bits of infinity.
const INFINITY: u32 = f32::INFINITY.to_bits();

/// A NaN that signals nothing.
const QUIET: u32 = 1 << 22;

/// The bits of the nearest bf16, of two the even one, above a lower half of any bits. NaN stays
/// NaN.
#[inline(always)]
fn nearest(bits: u32) -> u32 {
    let rounded = bits.wrapping_add(0x7fff + (bits >> HALF & 1));
    if bits & !(1 << 31) > INFINITY { bits | QUIET } else { rounded }
}

/// The nearest bf16, as a f32.
#[inline(always)]
pub(in crate::compute::cpu::kernels) fn rounded(number: f32) -> f32 {
    f32::from_bits(nearest(number.to_bits()) >> HALF << HALF)
}

/// The nearest bf16, as a f32; a subnormal one is 0 of its sign.
#[inline(always)]
pub fn round(number: f32) -> f32 {
    let nearest = rounded(number);
    if nearest.is_subnormal() { 0.0_f32.copysign(nearest) } else { nearest }
}

/// Two rounded numbers: `low` in the lower half.
#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    nearest(low.to_bits()) >> HALF | nearest(high.to_bits()) >> HALF << HALF
}

/// The numbers of a pair as f32.
#[inline(always)]
pub(super) fn parts(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << HALF), f32::from_bits(pair >> HALF << HALF)]
}

/// Two rows, whose numbers become pairs.
#[inline(always)]
pub(super) fn pairs_of_rows(low: &[f32; PANEL], high: &[f32; PANEL]) -> [u32; PANEL] {
    let mut pairs = [0; PANEL];
    for at in 0..PANEL {
        pairs[at] = pair(low[at], high[at]);
    }
    pairs
}

/// One row, whose neighbours become pairs.
#[inline(always)]
pub(super) fn pairs_of_neighbours(row: &[f32; BLOCK]) -> [u32; PAIRS] {
    let mut pairs = [0; PAIRS];
    for at in 0..PAIRS {
        pairs[at] = pair(row[2 * at], row[2 * at + 1]);
    }
    pairs
}

/// `to[column][row] = from[row][column]`.
#[inline(always)]
pub(super) fn transpose<const ROWS: usize, const COLUMNS: usize>(from: &[[u32; COLUMNS]; ROWS], to: &mut [[u32; ROWS]; COLUMNS]) {
    const { assert!(ROWS.is_multiple_of(4) && COLUMNS.is_multiple_of(4)) };
    // Four by four: one vector each.
    for row in (0..ROWS).step_by(4) {
        for column in (0..COLUMNS).step_by(4) {
            let mut fours = [[0; 4]; 4];
            for past in 0..4 {
                for at in 0..4 {
                    fours[past][at] = from[row + past][column + at];
                }
            }
            let turned = transpose_four(fours);
            for past in 0..4 {
                for at in 0..4 {
                    to[column + past][row + at] = turned[past][at];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(number: f32) -> u16 {
        (rounded(number).to_bits() >> HALF) as u16
    }

    #[test]
    fn the_nearest_is_the_nearest() {
        let halves = [(1.0, 0x3f80), (-0.0, 0x8000), (f32::INFINITY, 0x7f80), (f32::MAX, 0x7f80), (f32::NEG_INFINITY, 0xff80)];
        for (number, expected) in halves {
            assert_eq!(half(number), expected, "{number}");
        }
        // Between two neighbours: below the middle, in the middle of an even and an odd one, above.
        for (bits, expected) in [(0x3f80_7fff, 0x3f80), (0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x3f80_8001, 0x3f81)] {
            assert_eq!(half(f32::from_bits(bits)), expected, "{bits:x}");
            assert_eq!(half(f32::from_bits(bits | 1 << 31)), expected | 1 << 15, "-{bits:x}");
        }
        for bits in [0x7f80_0001, 0x7fff_ffff, 0xffff_ffff, 0xff80_0001] {
            assert!(rounded(f32::from_bits(bits)).is_nan(), "{bits:x}");
        }
        assert_eq!(round(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert_eq!(round(-f32::MIN_POSITIVE / 2.0).to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn a_transpose_is_a_transpose() {
        let from: [[u32; 12]; 8] = std::array::from_fn(|row| std::array::from_fn(|column| (row * 100 + column) as u32));
        let mut to = [[0; 8]; 12];
        transpose(&from, &mut to);
        for (column, rows) in to.iter().enumerate() {
            for (row, value) in rows.iter().enumerate() {
                assert_eq!(*value as usize, row * 100 + column);
            }
        }
    }
}
