//! A bf16 product in vectors of f32: a panel's pairs are two vectors each. Knows nothing of layouts
//! or threads.
//!
//! A vector has the same columns of even, or of odd, members. A block's even and odd sums are in
//! registers, both at once if there are enough; elements wait in memory.

use pulp::{Simd, WithSimd};

use super::blocks::{BLOCK, PAIRS};
use super::flush::flushed;
use super::pairs::Pairs;
use super::portable;
use super::slab::Slab;
use crate::compute::cpu::kernels::panel::PANEL;
use crate::compute::cpu::kernels::tile::{Ahead, load, store};
use crate::compute::cpu::kernels::written_out::written_out;

/// The upper half of a pair.
const UPPER: u32 = 0xffff_0000;

/// A slab and its tiles.
pub(super) struct Times<'a> {
    pub(super) slab: Slab<'a>,
    pub(super) left: &'a [f32],
}

impl WithSimd for Times<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for strip in 0..self.slab.strips.count() {
            for panel in 0..self.slab.panels {
                match self.slab.strips.row(strip + 1) - self.slab.strips.row(strip) {
                    1 => self.tile::<S, 1>(simd, strip, panel),
                    2 => self.tile::<S, 2>(simd, strip, panel),
                    3 => self.tile::<S, 3>(simd, strip, panel),
                    4 => self.tile::<S, 4>(simd, strip, panel),
                    5 => self.tile::<S, 5>(simd, strip, panel),
                    6 => self.tile::<S, 6>(simd, strip, panel),
                    7 => self.tile::<S, 7>(simd, strip, panel),
                    8 => self.tile::<S, 8>(simd, strip, panel),
                    9 => self.tile::<S, 9>(simd, strip, panel),
                    10 => self.tile::<S, 10>(simd, strip, panel),
                    11 => self.tile::<S, 11>(simd, strip, panel),
                    _ => self.tile::<S, 12>(simd, strip, panel),
                }
            }
        }
    }
}

impl Times<'_> {
    /// A tile of `ROWS` rows times a panel.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, strip: usize, panel: usize) {
        // One row has registers for more vectors, and more chains at once hide their latency.
        if ROWS == 1 && 4 * S::F32_LANES <= PANEL {
            self.tile_of::<S, ROWS, 4>(simd, strip, panel);
        } else {
            self.tile_of::<S, ROWS, 2>(simd, strip, panel);
        }
    }

    /// The same, `VECTORS` vectors of columns at a time.
    #[inline(always)]
    fn tile_of<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, simd: S, strip: usize, panel: usize) {
        let Self { slab, left } = self;
        let start = slab.strips.row(strip);
        let left = &left[start * slab.whole * BLOCK..][slab.blocks.start * BLOCK * ROWS..slab.blocks.end * BLOCK * ROWS];
        let blocks = left.as_chunks::<ROWS>().0.as_chunks::<2>().0.as_chunks::<PAIRS>().0;
        let lines = slab.lines(panel).as_chunks::<PAIRS>().0;
        let mut ahead = Ahead::new(slab.lines_ahead(panel), lines.len() * PAIRS, strip, slab.strips.count());
        for vector in (0..PANEL / S::F32_LANES).step_by(VECTORS) {
            let columns: [usize; VECTORS] = std::array::from_fn(|at| panel * PANEL + (vector + at) * S::F32_LANES);
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            if slab.add {
                written_out!(row in 0..ROWS, at most 12 => {
                    for at in 0..VECTORS {
                        sums[row][at] = load(simd, slab.out.row(start + row), columns[at]);
                    }
                });
            }
            let mut fetch = (vector == 0).then_some(&mut ahead);
            for (left, lines) in blocks.iter().zip(lines) {
                let [even, odd] = if 2 * ROWS * VECTORS <= S::REGISTER_COUNT - 8 {
                    both_sums::<S, ROWS, VECTORS>(simd, left, lines, vector, fetch.as_deref_mut())
                } else {
                    let even = sums_of::<S, ROWS, VECTORS, 0>(simd, left, lines, vector, fetch.as_deref_mut());
                    [even, sums_of::<S, ROWS, VECTORS, 1>(simd, left, lines, vector, None)]
                };
                written_out!(row in 0..ROWS, at most 12 => {
                    for at in 0..VECTORS {
                        sums[row][at] = simd.add_f32s(sums[row][at], simd.add_f32s(even[row][at], odd[row][at]));
                    }
                });
            }
            if flushed() {
                let first = vector * S::F32_LANES;
                portable::multiply_tile(slab, self.left, strip, panel, first..first + VECTORS * S::F32_LANES);
                continue;
            }
            written_out!(row in 0..ROWS, at most 12 => {
                for at in 0..VECTORS {
                    store(simd, slab.out.row(start + row), columns[at], sums[row][at]);
                }
            });
        }
    }
}

/// The sums of a block's even members, and of its odd ones.
#[inline(always)]
fn both_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    left: &[[[f32; ROWS]; 2]; PAIRS],
    lines: &[Pairs; PAIRS],
    vector: usize,
    mut ahead: Option<&mut Ahead>,
) -> [[[S::f32s; VECTORS]; ROWS]; 2] {
    let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; ROWS]; 2];
    for (left, line) in left.iter().zip(lines) {
        if let Some(ahead) = &mut ahead {
            ahead.fetch();
        }
        let [even, odd] = &mut sums;
        add::<S, ROWS, VECTORS>(simd, &left[0], numbers::<S, VECTORS, 0>(simd, line, vector), even);
        add::<S, ROWS, VECTORS>(simd, &left[1], numbers::<S, VECTORS, 1>(simd, line, vector), odd);
    }
    sums
}

/// The sums of a block's even members, or, of the `SECOND` of each pair, its odd ones.
#[inline(always)]
fn sums_of<S: Simd, const ROWS: usize, const VECTORS: usize, const SECOND: usize>(
    simd: S,
    left: &[[[f32; ROWS]; 2]; PAIRS],
    lines: &[Pairs; PAIRS],
    vector: usize,
    mut ahead: Option<&mut Ahead>,
) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (left, line) in left.iter().zip(lines) {
        if let Some(ahead) = &mut ahead {
            ahead.fetch();
        }
        add::<S, ROWS, VECTORS>(simd, &left[SECOND], numbers::<S, VECTORS, SECOND>(simd, line, vector), &mut sums);
    }
    sums
}

/// The first numbers of pairs, or the `SECOND`.
#[inline(always)]
fn numbers<S: Simd, const VECTORS: usize, const SECOND: usize>(simd: S, line: &Pairs, vector: usize) -> [S::f32s; VECTORS] {
    let words = &S::as_simd_u32s(&line.0).0[vector..vector + VECTORS];
    let mut numbers = [simd.splat_f32s(0.0); VECTORS];
    // A loop: a closure is compiled without the vector unit.
    for at in 0..VECTORS {
        numbers[at] = simd.transmute_f32s_u32s(if SECOND == 0 {
            simd.wrapping_dyn_shl_u32s(words[at], simd.splat_u32s(u16::BITS))
        } else {
            simd.and_u32s(words[at], simd.splat_u32s(UPPER))
        });
    }
    numbers
}

/// Adds one member's products.
#[inline(always)]
fn add<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    left: &[f32; ROWS],
    right: [S::f32s; VECTORS],
    sums: &mut [[S::f32s; VECTORS]; ROWS],
) {
    written_out!(row in 0..ROWS, at most 12 => {
        let factor = simd.splat_f32s(left[row]);
        for at in 0..VECTORS {
            sums[row][at] = simd.mul_add_f32s(factor, right[at], sums[row][at]);
        }
    });
}
