//! Tiles of a few rows times panels of a few columns, in registers. Knows nothing of where they are
//! laid out, or by which thread.
//!
//! A tile times a panel stays in registers until it is done; meanwhile the next panel is fetched,
//! so that memory and arithmetic work at the same time.

use pulp::{Simd, WithSimd};

use super::packed::PanelRow;
use super::panel::PANEL;
use super::written_out::written_out;

/// How many rows a tile may have, so that its sums fit into the CPU's registers beside what they
/// are made of.
pub(super) struct TileRows;

impl WithSimd for TileRows {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::REGISTER_COUNT >= 32 { 12 } else { 6 }
    }
}

/// Rows cut into tiles of nearly equal height.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) rows: usize,
    pub(super) count: usize,
}

impl Tiles {
    pub(super) fn new(rows: usize, most: usize) -> Self {
        Self { rows, count: rows.div_ceil(most) }
    }

    /// The first row of a tile.
    pub(super) fn row(&self, tile: usize) -> usize {
        let (height, higher) = (self.rows / self.count, self.rows % self.count);
        tile * height + tile.min(higher)
    }

    /// `count` tiles from `first` on, or those that are left, as tiles of their own.
    pub(super) fn part(&self, first: usize, count: usize) -> Self {
        let count = count.min(self.count - first);
        Self { rows: self.row(first + count) - self.row(first), count }
    }
}

/// What one thread computes of a product at once: tiles times panels, along a part of the inner
/// dimension.
pub(super) struct Slab<'a, 'o> {
    pub(super) tiles: Tiles,
    /// The tiles, laid out.
    pub(super) left: &'a [f32],
    /// How many panels.
    pub(super) count: usize,
    pub(super) depth: usize,
    /// A slice of each row, in which the panels begin at column `first`.
    pub(super) out: &'a mut [&'o mut [f32]],
    pub(super) first: usize,
    /// Whether `out` counts too.
    pub(super) add: bool,
}

/// A slab with the rows of its panels, and how many rows after one panel's first is the next
/// panel's. More rows may follow.
pub(super) struct Times<'a, 'o, L> {
    pub(super) slab: Slab<'a, 'o>,
    pub(super) lines: &'a [L],
    pub(super) stride: usize,
}

impl<L: PanelRow> WithSimd for Times<'_, '_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { slab: Slab { tiles, left, count, depth, out, first, add }, lines: all, stride } = self;
        for tile in 0..tiles.count {
            let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
            let left = &left[start * depth..end * depth];
            let out = &mut out[start..end];
            for panel in 0..count {
                let lines = &all[panel * stride..][..depth];
                let next = all.get((panel + 1) * stride..).unwrap_or_default();
                let ahead = Ahead::new(next, depth, tile, tiles.count);
                let first = first + panel * PANEL;
                match end - start {
                    1 => tile_times_panel::<S, L, 1>(simd, left, lines, ahead, out, first, add),
                    2 => tile_times_panel::<S, L, 2>(simd, left, lines, ahead, out, first, add),
                    3 => tile_times_panel::<S, L, 3>(simd, left, lines, ahead, out, first, add),
                    4 => tile_times_panel::<S, L, 4>(simd, left, lines, ahead, out, first, add),
                    5 => tile_times_panel::<S, L, 5>(simd, left, lines, ahead, out, first, add),
                    6 => tile_times_panel::<S, L, 6>(simd, left, lines, ahead, out, first, add),
                    7 => tile_times_panel::<S, L, 7>(simd, left, lines, ahead, out, first, add),
                    8 => tile_times_panel::<S, L, 8>(simd, left, lines, ahead, out, first, add),
                    9 => tile_times_panel::<S, L, 9>(simd, left, lines, ahead, out, first, add),
                    10 => tile_times_panel::<S, L, 10>(simd, left, lines, ahead, out, first, add),
                    11 => tile_times_panel::<S, L, 11>(simd, left, lines, ahead, out, first, add),
                    _ => tile_times_panel::<S, L, 12>(simd, left, lines, ahead, out, first, add),
                }
            }
        }
    }
}

/// Memory that is fetched a little at a time while something else is computed: from several places
/// in turn, since CPUs look ahead on their own within each page that they see being read.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    at: *const u8,
    step_bytes: usize,
    stripe_bytes: usize,
    turn: usize,
}

/// Bytes that the CPU fetches at a time.
pub(super) const CACHE_LINE: usize = 64;

/// Places that memory is fetched from in turn.
const STRIPES: usize = 4;

impl Ahead {
    /// One part in `of` of the next `depth` lines, in as many steps.
    pub(super) fn new<L>(lines: &[L], depth: usize, part: usize, of: usize) -> Self {
        let part_bytes = depth * size_of::<L>() / of;
        Self {
            at: lines.as_ptr().cast::<u8>().wrapping_add(part * part_bytes),
            step_bytes: size_of::<L>() / of,
            stripe_bytes: (part_bytes / STRIPES).next_multiple_of(CACHE_LINE),
            turn: 0,
        }
    }

    /// Asks for the next bytes, to be put into the second cache: the first one is full of what is
    /// being used.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        prefetch(self.at);
        if self.step_bytes > CACHE_LINE {
            prefetch(self.at.wrapping_add(CACHE_LINE));
        }
        self.turn += 1;
        self.at = self.at.wrapping_add(self.stripe_bytes);
        if self.turn == STRIPES {
            self.turn = 0;
            self.at = self.at.wrapping_sub(STRIPES * self.stripe_bytes).wrapping_add(self.step_bytes);
        }
    }
}

/// Asks for a cache line, to be put into the second cache.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint to the CPU, which does nothing at an address that cannot be read.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `ROWS` rows times a panel, for the columns `first` and following of `out`. Two vectors of
/// columns at a time: with `ROWS` at its most, that is what registers hold.
#[inline(always)]
fn tile_times_panel<S: Simd, L: PanelRow, const ROWS: usize>(
    simd: S,
    left: &[f32],
    lines: &[L],
    mut ahead: Ahead,
    out: &mut [&mut [f32]],
    first: usize,
    add: bool,
) {
    for vector in 0..PANEL / 2 / S::F32_LANES {
        let starts = [first + vector * S::F32_LANES, first + PANEL / 2 + vector * S::F32_LANES];
        let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
        if add {
            written_out!(row in 0..ROWS, at most 12 => {
                sums[row] = [load(simd, out[row], starts[0]), load(simd, out[row], starts[1])];
            });
        }
        for (line, left) in lines.iter().zip(left.as_chunks::<ROWS>().0) {
            ahead.fetch();
            let pair = line.pair(simd, vector);
            written_out!(row in 0..ROWS, at most 12 => {
                let factor = simd.splat_f32s(left[row]);
                sums[row][0] = simd.mul_add_f32s(factor, pair[0], sums[row][0]);
                sums[row][1] = simd.mul_add_f32s(factor, pair[1], sums[row][1]);
            });
        }
        written_out!(row in 0..ROWS, at most 12 => {
            store(simd, out[row], starts[0], sums[row][0]);
            store(simd, out[row], starts[1], sums[row][1]);
        });
    }
}

/// A vector of a row from `start` on; what lies past its end is 0.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, row: &[f32], start: usize) -> S::f32s {
    let rest = row.get(start..).unwrap_or_default();
    match S::as_simd_f32s(rest).0 {
        [whole, ..] => *whole,
        [] => simd.partial_load_f32s(rest),
    }
}

/// Puts a vector where [`load`] takes it from; what lies past the row's end is left out.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, row: &mut [f32], start: usize, vector: S::f32s) {
    let rest = row.get_mut(start..).unwrap_or_default();
    match S::as_mut_simd_f32s(rest).0 {
        [whole, ..] => *whole = vector,
        [] => simd.partial_store_f32s(rest, vector),
    }
}
