//! Products with a matrix that is laid out for them. Knows nothing of what the matrices mean.
//!
//! The right factor is cut into panels of [`PANEL`] columns, row after row, so that the innermost loop reads memory from front to back. The
//! left factor is laid out in tiles of a few rows when it is used. A tile times a panel stays in registers until it is done.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::arch;
use rayon::prelude::*;

/// Columns of a panel.
const PANEL: usize = 32;

/// Multiply-adds that are worth being given to another thread.
const WORTH_A_SHARE: usize = 1 << 17;

/// Shares of a large product that there are for each thread.
const SHARES_A_THREAD: usize = 4;

/// Tiles for each thread from which on a product is shared out by its rows.
const MANY_TILES: usize = 8;

/// How much of the inner dimension is worked on at once, so that what is used again is still near. An element's chain goes on where it stopped.
const DEPTH: usize = 384;

/// One row of a panel, a whole number of cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Line([f32; PANEL]);

/// The right factor of a product, `[rows, columns]`.
#[derive(Clone, Debug)]
pub struct Packed {
    rows: usize,
    columns: usize,
    /// `[panels, rows]`; columns past the end are 0.
    lines: Vec<Line>,
}

/// The left factor of a product, `[rows, inner]`.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Row after row.
    Rows(&'a [f32]),
    /// Column after column: what is stored is the transpose, `[inner, rows]`, row after row.
    Columns(&'a [f32]),
}

impl Packed {
    /// The matrices `[rows, columns]` of `parts` beside each other, each given with its number of columns, row after row.
    ///
    /// # Panics
    /// When a part has not `rows` times its columns numbers.
    pub fn of_rows(rows: usize, parts: &[(&[f32], usize)]) -> Self {
        assert!(parts.iter().all(|(values, columns)| values.len() == rows * columns), "expected parts of {rows} rows");
        let columns = parts.iter().map(|(_, columns)| columns).sum();
        Self::of_lines(rows, columns, |row, first, line| {
            let mut start = 0;
            for (values, columns) in parts {
                // What the line has of this part: columns `from` to `to` of it.
                let from = first.clamp(start, start + columns) - start;
                let to = (first + PANEL).clamp(start, start + columns) - start;
                if from < to {
                    let place = start + from - first;
                    line[place..place + to - from].copy_from_slice(&values[row * columns + from..row * columns + to]);
                }
                start += columns;
            }
        })
    }

    /// The transpose of `values`, which are `[columns, rows]`, row after row.
    ///
    /// # Panics
    /// When there are not `rows` times `columns` values.
    pub fn of_columns(rows: usize, columns: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * columns, "expected {columns} columns of {rows}");
        Self::of_lines(rows, columns, |row, first, line| {
            let values = values[first * rows + row..].iter().step_by(rows);
            line.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        })
    }

    /// Has every line of zeros filled, given its row and its first column.
    fn of_lines(rows: usize, columns: usize, fill: impl Fn(usize, usize, &mut [f32; PANEL]) + Sync) -> Self {
        let line = |at: usize| {
            let mut line = Line([0.0; PANEL]);
            fill(at % rows, at / rows * PANEL, &mut line.0);
            line
        };
        let count = rows * columns.div_ceil(PANEL);
        // Fewer lines than that are not worth a thread's while.
        Self { rows, columns, lines: (0..count).into_par_iter().with_min_len(512).map(line).collect() }
    }

    /// Copies one column to `to`.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, column: usize, to: &mut [f32]) {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        let lines = &self.lines[column / PANEL * self.rows..][..self.rows];
        to.iter_mut().zip(lines).for_each(|(to, line)| *to = line.0[column % PANEL]);
    }

    /// The inner dimension of a product with it.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The width of a product with it.
    pub fn columns(&self) -> usize {
        self.columns
    }
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
    let (inner, columns) = (right.rows, right.columns);
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
    let arch = arch();
    let tiles = Tiles::new(rows, arch.dispatch(TileRows));
    let panels = columns.div_ceil(PANEL);
    // More shares than threads, so that one that is held up gets less to do.
    let shares = (rows * columns * inner / WORTH_A_SHARE).clamp(1, SHARES_A_THREAD * threads);
    if shares == 1 || threads == 1 {
        let out = out.chunks_mut(columns).collect();
        return arch.dispatch(Share { tiles, left: Piece { left, rows, inner, first: 0 }, right: &right.lines, out, add });
    }
    // Few rows go by quickly, and what counts is that the right factor is read once: each share is a range of its panels. Many rows are shared out
    // as ranges of tiles.
    let (across, down) = match tiles.count >= MANY_TILES * threads {
        true => (1, shares.min(tiles.count)),
        false => (shares.min(panels), shares.div_ceil(shares.min(panels)).min(tiles.count)),
    };
    let panels_each = panels.div_ceil(across);
    let tiles_each = tiles.count.div_ceil(down);
    let mut shares = Vec::new();
    let (mut rest, mut first) = (out, 0);
    while first < tiles.count {
        let part = tiles.part(first, tiles_each);
        let (start, end) = (tiles.row(first), tiles.row(first + part.count));
        let (here, after) = rest.split_at_mut((end - start) * columns);
        let mut ranges: Vec<Vec<&mut [f32]>> = (0..panels.div_ceil(panels_each)).map(|_| Vec::with_capacity(end - start)).collect();
        for row in here.chunks_mut(columns) {
            ranges.iter_mut().zip(row.chunks_mut(panels_each * PANEL)).for_each(|(range, columns)| range.push(columns));
        }
        for (out, right) in ranges.into_iter().zip(right.lines.chunks(panels_each * inner)) {
            shares.push(Share { tiles: part, left: Piece { left, rows, inner, first: start }, right, out, add });
        }
        (rest, first) = (after, first + part.count);
    }
    shares.into_par_iter().for_each(|share| arch.dispatch(share));
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

impl Piece<'_> {
    /// Each tile's numbers of some of its columns in the order in which they are used: the rows of the first of them, of the second, and so on.
    #[inline(always)]
    fn lay_out(&self, tiles: Tiles, columns: Range<usize>, to: &mut [f32]) {
        for tile in 0..tiles.count {
            let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
            let height = end - start;
            let to = &mut to[start * columns.len()..end * columns.len()];
            let (start, end) = (self.first + start, self.first + end);
            match self.left {
                Left::Rows(values) => {
                    for (at, row) in values[start * self.inner..end * self.inner].chunks_exact(self.inner).enumerate() {
                        let to = to[at..].iter_mut().step_by(height);
                        to.zip(&row[columns.clone()]).for_each(|(to, from)| *to = *from);
                    }
                }
                Left::Columns(values) => {
                    let values = values[columns.start * self.rows..columns.end * self.rows].chunks_exact(self.rows);
                    to.chunks_exact_mut(height).zip(values).for_each(|(to, from)| to.copy_from_slice(&from[start..end]));
                }
            }
        }
    }
}

/// What one thread computes of a product.
struct Share<'a> {
    tiles: Tiles,
    left: Piece<'a>,
    /// Whole panels.
    right: &'a [Line],
    /// A slice of each row, as wide as the panels.
    out: Vec<&'a mut [f32]>,
    add: bool,
}

impl WithSimd for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, left: piece, right, mut out, add } = self;
        let mut laid_out = vec![0.0; tiles.rows * piece.inner.min(DEPTH)];
        for first in (0..piece.inner).step_by(DEPTH) {
            let columns = first..(first + DEPTH).min(piece.inner);
            let depth = columns.len();
            let add = add || first > 0;
            piece.lay_out(tiles, columns.clone(), &mut laid_out);
            for (panel, lines) in right.chunks_exact(piece.inner).enumerate() {
                let lines = &lines[columns.clone()];
                for tile in 0..tiles.count {
                    let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
                    let left = &laid_out[start * depth..end * depth];
                    let out = &mut out[start..end];
                    match end - start {
                        1 => tile_times_panel::<S, 1>(simd, left, lines, out, panel, add),
                        2 => tile_times_panel::<S, 2>(simd, left, lines, out, panel, add),
                        3 => tile_times_panel::<S, 3>(simd, left, lines, out, panel, add),
                        4 => tile_times_panel::<S, 4>(simd, left, lines, out, panel, add),
                        5 => tile_times_panel::<S, 5>(simd, left, lines, out, panel, add),
                        6 => tile_times_panel::<S, 6>(simd, left, lines, out, panel, add),
                        7 => tile_times_panel::<S, 7>(simd, left, lines, out, panel, add),
                        8 => tile_times_panel::<S, 8>(simd, left, lines, out, panel, add),
                        9 => tile_times_panel::<S, 9>(simd, left, lines, out, panel, add),
                        10 => tile_times_panel::<S, 10>(simd, left, lines, out, panel, add),
                        11 => tile_times_panel::<S, 11>(simd, left, lines, out, panel, add),
                        _ => tile_times_panel::<S, 12>(simd, left, lines, out, panel, add),
                    }
                }
            }
        }
    }
}

/// `ROWS` rows times a panel. Two vectors of columns at a time: with `ROWS` at its most, that is what registers hold.
#[inline(always)]
fn tile_times_panel<S: Simd, const ROWS: usize>(simd: S, left: &[f32], lines: &[Line], out: &mut [&mut [f32]], panel: usize, add: bool) {
    let first = panel * PANEL;
    let mut block = [Line([0.0; PANEL]); ROWS];
    if add {
        for (line, out) in block.iter_mut().zip(out.iter()) {
            line.0.iter_mut().zip(&out[first..]).for_each(|(to, from)| *to = *from);
        }
    }
    for vector in (0..PANEL / S::F32_LANES).step_by(2) {
        let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
        for (sums, line) in sums.iter_mut().zip(&block) {
            let vectors = S::as_simd_f32s(&line.0).0;
            *sums = [vectors[vector], vectors[vector + 1]];
        }
        for (line, left) in lines.iter().zip(left.as_chunks::<ROWS>().0) {
            let vectors = S::as_simd_f32s(&line.0).0;
            let pair = [vectors[vector], vectors[vector + 1]];
            for row in 0..ROWS {
                let factor = simd.splat_f32s(left[row]);
                sums[row][0] = simd.mul_add_f32s(factor, pair[0], sums[row][0]);
                sums[row][1] = simd.mul_add_f32s(factor, pair[1], sums[row][1]);
            }
        }
        for (sums, line) in sums.iter().zip(&mut block) {
            let vectors = S::as_mut_simd_f32s(&mut line.0).0;
            [vectors[vector], vectors[vector + 1]] = *sums;
        }
    }
    for (line, out) in block.iter().zip(out) {
        out[first..].iter_mut().zip(&line.0).for_each(|(to, from)| *to = *from);
    }
}
