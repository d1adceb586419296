//! A bf16 product in vectors of f32: a panel's pairs are two vectors each. Knows nothing of layouts
//! or threads.
//!
//! A vector has the same columns of even, or of odd, members. Elements are in memory, and are added
//! to after each block: registers hold a block's two sums.

use pulp::{Simd, WithSimd};

use super::blocks::{BLOCK, PAIRS};
use super::flush::flushed;
use super::pairs::Pairs;
use super::portable;
use super::slab::Slab;
use crate::compute::cpu::kernels::panel::PANEL;
use crate::compute::cpu::kernels::tile::{Ahead, load, store};

/// The most rows of a tile, whose sums fit into the CPU's registers beside their factors.
pub(super) struct TileRows;

impl WithSimd for TileRows {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::REGISTER_COUNT >= 32 { 6 } else { 3 }
    }
}

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
                    _ => self.tile::<S, 6>(simd, strip, panel),
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
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = columns.map(|column| load(simd, slab.out.row(start + row), column));
                }
            }
            for (left, lines) in blocks.iter().zip(lines) {
                let [even, odd] = block_sums::<S, ROWS, VECTORS>(simd, left, lines, vector, &mut ahead);
                for row in 0..ROWS {
                    for at in 0..VECTORS {
                        sums[row][at] = simd.add_f32s(sums[row][at], simd.add_f32s(even[row][at], odd[row][at]));
                    }
                }
            }
            if flushed() {
                let first = vector * S::F32_LANES;
                portable::multiply_tile(slab, self.left, strip, panel, first..first + VECTORS * S::F32_LANES);
                continue;
            }
            for (row, sums) in sums.iter().enumerate() {
                for (column, sum) in columns.iter().zip(sums) {
                    store(simd, slab.out.row(start + row), *column, *sum);
                }
            }
        }
    }
}

/// What a block's even members, and its odd ones, sum up to.
#[inline(always)]
fn block_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    left: &[[[f32; ROWS]; 2]; PAIRS],
    lines: &[Pairs; PAIRS],
    vector: usize,
    ahead: &mut Ahead,
) -> [[[S::f32s; VECTORS]; ROWS]; 2] {
    let mut even = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    let mut odd = even;
    for (left, line) in left.iter().zip(lines) {
        ahead.fetch();
        let words = &S::as_simd_u32s(&line.0).0[vector..vector + VECTORS];
        let low: [S::f32s; VECTORS] =
            std::array::from_fn(|at| simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words[at], simd.splat_u32s(u16::BITS))));
        let high: [S::f32s; VECTORS] = std::array::from_fn(|at| simd.transmute_f32s_u32s(simd.and_u32s(words[at], simd.splat_u32s(UPPER))));
        for row in 0..ROWS {
            let (left_low, left_high) = (simd.splat_f32s(left[0][row]), simd.splat_f32s(left[1][row]));
            for at in 0..VECTORS {
                even[row][at] = simd.mul_add_f32s(left_low, low[at], even[row][at]);
                odd[row][at] = simd.mul_add_f32s(left_high, high[at], odd[row][at]);
            }
        }
    }
    [even, odd]
}
