//! Products with a matrix that is laid out for them. Knows nothing of what the matrices mean.
//!
//! The left factor is laid out in tiles of a few rows when it is used. A tile times a panel of the right factor stays in registers until it is
//! done; meanwhile the next panel is fetched, so that memory and arithmetic work at the same time.

use std::cell::Cell;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::arch;
use super::packed::{Lines, PANEL, Packed, PanelRow};

/// Multiply-adds that are worth being given to another thread.
const WORTH_A_SHARE: usize = 1 << 15;

/// Shares of a large product that there are for each thread.
const SHARES_A_THREAD: usize = 4;

/// Tiles for each thread from which on a product is shared out by its rows.
const MANY_TILES: usize = 8;

/// How much of the inner dimension is worked on at once, at most, so that what is used again is still near. An element's chain goes on where it
/// stopped.
const DEPTH: usize = 768;

/// Numbers of the left factor that a share works on at once: half a MiB, which fits into a processor's second cache beside what goes by.
const NEAR: usize = 1 << 17;

/// Columns that are laid out at once when they come from rows.
const COLUMNS_TOGETHER: usize = 32;

/// Tiles that are laid out at once when they come from columns.
const TILES_TOGETHER: usize = 8;

/// The left factor of a product, `[rows, inner]`.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Row after row.
    Rows(&'a [f32]),
    /// Column after column: what is stored is the transpose, `[inner, rows]`, row after row.
    Columns(&'a [f32]),
}

/// `out = left · right`.
///
/// # Shapes
/// - left: `[rows, inner]`
/// - right: `[inner, columns]`
/// - out: `[rows, columns]`, row after row; its length says how many rows there are
///
/// # Panics
/// When the shapes do not fit.
pub fn product(left: Left<'_>, right: &Packed, out: &mut [f32]) {
    multiply(left, right, out, false, rayon::current_num_threads());
}

/// `out += left · right`, see [`product`].
///
/// # Panics
/// When the shapes do not fit.
pub fn add_product(left: Left<'_>, right: &Packed, out: &mut [f32]) {
    multiply(left, right, out, true, rayon::current_num_threads());
}

/// `out = left · right`, or with `add` `out += left · right`, on at most so many threads; see [`product`].
///
/// # Panics
/// When the shapes do not fit.
pub(super) fn multiply(left: Left<'_>, right: &Packed, out: &mut [f32], add: bool, threads: usize) {
    let (inner, columns) = (right.rows(), right.columns());
    let rows = out.len().checked_div(columns).unwrap_or(0);
    let (Left::Rows(values) | Left::Columns(values)) = left;
    assert!(out.len() == rows * columns && values.len() == rows * inner, "expected [rows, {inner}] and [rows, {columns}]");
    if rows == 0 {
        return;
    }
    if inner == 0 {
        if !add {
            out.fill(0.0);
        }
        return;
    }
    match right.lines() {
        Lines::Singles(lines) => multiply_lines(left, lines, [rows, inner, columns], out, add, threads),
        Lines::Halves(lines) => multiply_lines(left, lines, [rows, inner, columns], out, add, threads),
    }
}

/// [`multiply`] with `lines` as they lie in memory; no dimension is 0.
fn multiply_lines<L: PanelRow>(
    left: Left<'_>,
    right: &[L],
    [rows, inner, columns]: [usize; 3],
    out: &mut [f32],
    add: bool,
    threads: usize,
) {
    let arch = arch();
    let tiles = Tiles::new(rows, arch.dispatch(TileRows));
    let left = Piece { left, rows, inner, first: 0 };
    let whole_inner = inner;
    let panels = columns.div_ceil(PANEL);
    let shares = (rows * columns * inner / WORTH_A_SHARE).clamp(1, if threads == 1 { 1 } else { SHARES_A_THREAD * threads });
    if shares == 1 || tiles.count >= MANY_TILES * threads {
        // Many rows are shared out as ranges of tiles, none with more numbers than stay near.
        let most = NEAR.div_ceil(inner.min(DEPTH) * tiles.rows.div_ceil(tiles.count));
        let each = tiles.count.div_ceil(shares.min(tiles.count)).min(most);
        let mut pieces = Vec::with_capacity(tiles.count.div_ceil(each));
        let mut rest = out;
        for first in (0..tiles.count).step_by(each) {
            let part = tiles.part(first, each);
            let (here, after) = rest.split_at_mut(part.rows * columns);
            pieces.push((Piece { first: tiles.row(first), ..left }, part, here));
            rest = after;
        }
        let work = |(piece, tiles, out): (Piece<'_>, Tiles, &mut [f32])| {
            let mut out: Vec<&mut [f32]> = out.chunks_mut(columns).collect();
            with_memory(|laid_out| {
                for inner in slabs(whole_inner) {
                    laid_out.resize(tiles.rows * inner.len(), 0.0);
                    piece.lay_out(tiles, inner.clone(), laid_out);
                    arch.dispatch(Slab { tiles, left: laid_out, right, whole_inner, inner, out: &mut out, add });
                }
            });
        };
        match shares {
            1 => pieces.into_iter().for_each(work),
            _ => pieces.into_par_iter().for_each(work),
        }
    } else {
        // Few rows go by quickly, and what counts is that the right factor is read once: each share is a range of its panels.
        let each = panels.div_ceil(shares.min(panels));
        let mut ranges: Vec<Vec<&mut [f32]>> = (0..panels.div_ceil(each)).map(|_| Vec::with_capacity(rows)).collect();
        for row in out.chunks_mut(columns) {
            ranges.iter_mut().zip(row.chunks_mut(each * PANEL)).for_each(|(range, columns)| range.push(columns));
        }
        with_memory(|laid_out| {
            laid_out.resize(rows * inner, 0.0);
            for inner in slabs(inner) {
                left.lay_out(tiles, inner.clone(), &mut laid_out[rows * inner.start..rows * inner.end]);
            }
            let laid_out = &*laid_out;
            ranges.into_par_iter().zip(right.par_chunks(each * inner)).for_each(|(mut out, right)| {
                for slab in slabs(inner) {
                    let left = &laid_out[rows * slab.start..rows * slab.end];
                    arch.dispatch(Slab { tiles, left, right, whole_inner, inner: slab, out: &mut out, add });
                }
            });
        });
    }
}

/// The inner dimension in pieces of nearly equal length.
fn slabs(inner: usize) -> impl Iterator<Item = Range<usize>> {
    let depth = inner.div_ceil(inner.div_ceil(DEPTH));
    (0..inner).step_by(depth).map(move |first| first..(first + depth).min(inner))
}

/// How many rows a tile may have, so that its sums fit into the processor's registers beside what they are made of.
struct TileRows;

impl WithSimd for TileRows {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::REGISTER_COUNT >= 32 { 12 } else { 6 }
    }
}

/// Rows cut into tiles of nearly equal height.
#[derive(Clone, Copy)]
struct Tiles {
    rows: usize,
    count: usize,
}

impl Tiles {
    fn new(rows: usize, most: usize) -> Self {
        Self { rows, count: rows.div_ceil(most) }
    }

    /// The first row of a tile.
    fn row(&self, tile: usize) -> usize {
        let (height, higher) = (self.rows / self.count, self.rows % self.count);
        tile * height + tile.min(higher)
    }

    /// `count` tiles from `first` on, or those that are left, as tiles of their own.
    fn part(&self, first: usize, count: usize) -> Self {
        let count = count.min(self.count - first);
        Self { rows: self.row(first + count) - self.row(first), count }
    }
}

/// The left factor from row `first` on.
#[derive(Clone, Copy)]
struct Piece<'a> {
    left: Left<'a>,
    /// Of the whole factor.
    rows: usize,
    inner: usize,
    first: usize,
}

/// Calls `work` with memory of this thread that is used again and again, whatever is in it.
fn with_memory(work: impl FnOnce(&mut Vec<f32>)) {
    thread_local! {
        static MEMORY: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    // Taken, since this thread may come by again while it waits for others in `work`.
    let mut memory = MEMORY.take();
    work(&mut memory);
    MEMORY.set(memory);
}

impl Piece<'_> {
    /// The tiles' numbers of some columns in the order in which they are used: tile after tile, the rows of the first column, of the second, and so on.
    fn lay_out(&self, tiles: Tiles, columns: Range<usize>, to: &mut [f32]) {
        match self.left {
            Left::Rows(values) => {
                for tile in 0..tiles.count {
                    let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
                    let to = &mut to[start * columns.len()..end * columns.len()];
                    let values = &values[(self.first + start) * self.inner..(self.first + end) * self.inner];
                    // A few columns at once, so that what is written stays near.
                    for (to, first) in to.chunks_mut(COLUMNS_TOGETHER * (end - start)).zip(columns.clone().step_by(COLUMNS_TOGETHER)) {
                        for (at, row) in values.chunks_exact(self.inner).enumerate() {
                            to[at..].iter_mut().step_by(end - start).zip(&row[first..]).for_each(|(to, from)| *to = *from);
                        }
                    }
                }
            }
            // Some tiles at once, since their numbers lie together.
            Left::Columns(values) => {
                let values = &values[columns.start * self.rows..columns.end * self.rows];
                for group in (0..tiles.count).step_by(TILES_TOGETHER) {
                    let group = group..(group + TILES_TOGETHER).min(tiles.count);
                    for (at, values) in values.chunks_exact(self.rows).enumerate() {
                        for tile in group.clone() {
                            let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
                            let to = &mut to[start * columns.len() + at * (end - start)..][..end - start];
                            to.copy_from_slice(&values[self.first + start..self.first + end]);
                        }
                    }
                }
            }
        }
    }
}

/// What one thread computes of a product at once: tiles times panels, along a part of the inner dimension.
struct Slab<'a, 'o, L> {
    tiles: Tiles,
    /// The tiles, laid out.
    left: &'a [f32],
    /// Whole panels.
    right: &'a [L],
    whole_inner: usize,
    inner: Range<usize>,
    /// A slice of each row, as wide as the panels.
    out: &'a mut [&'o mut [f32]],
    /// Whether `out` counts too where the inner dimension begins.
    add: bool,
}

impl<L: PanelRow> WithSimd for Slab<'_, '_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, left, right, whole_inner, inner, out, add } = self;
        let add = add || inner.start > 0;
        let depth = inner.len();
        for (panel, lines) in right.chunks_exact(whole_inner).enumerate() {
            let lines = &lines[inner.clone()];
            let next = right.get((panel + 1) * whole_inner + inner.start..).unwrap_or_default();
            for tile in 0..tiles.count {
                let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
                let left = &left[start * depth..end * depth];
                let ahead = Ahead::new(next, tile * depth / tiles.count, tiles.count);
                let out = &mut out[start..end];
                let first = panel * PANEL;
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

/// Memory that is fetched a little at a time while something else is computed.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const u8,
    step_bytes: usize,
}

/// Bytes that the processor fetches at a time.
const CACHE_LINE: usize = 64;

impl Ahead {
    /// `lines` from `first` on; one of `of` each as often as it is asked.
    fn new<L>(lines: &[L], first: usize, of: usize) -> Self {
        Self { at: lines.as_ptr().wrapping_add(first).cast(), step_bytes: size_of::<L>() / of }
    }

    /// Asks for the next bytes, to be put into the second cache: the first one is full of what is being used.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn fetch(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: hints to the processor, which do nothing at addresses that cannot be read.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(self.at.cast());
            if self.step_bytes > CACHE_LINE {
                _mm_prefetch::<_MM_HINT_T1>(self.at.wrapping_add(CACHE_LINE).cast());
            }
        }
        self.at = self.at.wrapping_add(self.step_bytes);
    }
}

/// `ROWS` rows times a panel, for the columns `first` and following of `out`. Two vectors of columns at a time: with `ROWS` at its most, that is
/// what registers hold.
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
            for row in 0..ROWS {
                sums[row] = [load(simd, out[row], starts[0]), load(simd, out[row], starts[1])];
            }
        }
        for (line, left) in lines.iter().zip(left.as_chunks::<ROWS>().0) {
            ahead.fetch();
            let pair = line.pair(simd, vector);
            for row in 0..ROWS {
                let factor = simd.splat_f32s(left[row]);
                sums[row][0] = simd.mul_add_f32s(factor, pair[0], sums[row][0]);
                sums[row][1] = simd.mul_add_f32s(factor, pair[1], sums[row][1]);
            }
        }
        for row in 0..ROWS {
            store(simd, out[row], starts[0], sums[row][0]);
            store(simd, out[row], starts[1], sums[row][1]);
        }
    }
}

/// A vector of a row from `start` on; what lies past its end is 0.
#[inline(always)]
fn load<S: Simd>(simd: S, row: &[f32], start: usize) -> S::f32s {
    let rest = row.get(start..).unwrap_or_default();
    match S::as_simd_f32s(rest).0 {
        [whole, ..] => *whole,
        [] => simd.partial_load_f32s(rest),
    }
}

/// Puts a vector where [`load`] takes it from; what lies past the row's end is left out.
#[inline(always)]
fn store<S: Simd>(simd: S, row: &mut [f32], start: usize, vector: S::f32s) {
    let rest = row.get_mut(start..).unwrap_or_default();
    match S::as_mut_simd_f32s(rest).0 {
        [whole, ..] => *whole = vector,
        [] => simd.partial_store_f32s(rest, vector),
    }
}
