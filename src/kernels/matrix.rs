//! Products with a matrix that is laid out for them. Knows nothing of what the matrices mean.
//!
//! The right factor is cut into panels of [`PANEL`] columns, row after row, so that the innermost loop reads memory from front to back. The
//! left factor is laid out in tiles of a few rows when it is used. A tile times a panel stays in registers until it is done.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns of a panel.
const PANEL: usize = 32;

/// Multiply-adds that are worth being given to another thread.
const WORTH_A_SHARE: usize = 1 << 17;

/// Shares of a large product that there are for each thread.
const SHARES_A_THREAD: usize = 4;

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
        let mut packed = Self::zeros(rows, parts.iter().map(|(_, columns)| columns).sum());
        packed.fill(|row, lines| {
            let mut values = parts.iter().flat_map(|(values, columns)| &values[row * columns..(row + 1) * columns]);
            lines.for_each(|line| line.0.iter_mut().zip(&mut values).for_each(|(to, from)| *to = *from));
        });
        packed
    }

    /// The transpose of `values`, which are `[columns, rows]`, row after row.
    ///
    /// # Panics
    /// When there are not `rows` times `columns` values.
    pub fn of_columns(rows: usize, columns: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * columns, "expected {columns} columns of {rows}");
        let mut packed = Self::zeros(rows, columns);
        if rows > 0 {
            // Tiles of as many rows as a cache line has numbers, so that what is read is used up while it is near.
            let panels = packed.lines.par_chunks_mut(rows).zip(values.par_chunks(PANEL * rows));
            panels.for_each(|(lines, columns)| {
                for (tile, lines) in lines.chunks_mut(16).enumerate() {
                    for (column, values) in columns.chunks(rows).enumerate() {
                        let values = &values[tile * 16..];
                        lines.iter_mut().zip(values).for_each(|(line, value)| line.0[column] = *value);
                    }
                }
            });
        }
        packed
    }

    fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, lines: vec![Line([0.0; PANEL]); rows * columns.div_ceil(PANEL)] }
    }

    /// Hands every row with its lines, one a panel, to `fill`.
    fn fill(&mut self, fill: impl Fn(usize, &mut dyn Iterator<Item = &mut Line>)) {
        for row in 0..self.rows {
            fill(row, &mut self.lines.iter_mut().skip(row).step_by(self.rows));
        }
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
    multiply(left, right, out, false);
}

/// `out += left · right`, see [`product`].
///
/// # Panics
/// When the shapes do not fit.
pub fn add_product(left: Left<'_>, right: &Packed, out: &mut [f32]) {
    multiply(left, right, out, true);
}

fn multiply(left: Left<'_>, right: &Packed, out: &mut [f32], add: bool) {
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
    let arch = Arch::new();
    let tiles = Tiles::new(rows, inner, arch.dispatch(TileRows));
    let mut laid_out = vec![0.0; values.len()];
    tiles.lay_out(left, &mut laid_out);

    let panels = columns.div_ceil(PANEL);
    // More shares than threads, so that one that is held up gets less to do.
    let shares = (rows * columns * inner / WORTH_A_SHARE).clamp(1, SHARES_A_THREAD * rayon::current_num_threads());
    if shares == 1 || rayon::current_num_threads() == 1 {
        let out = out.chunks_mut(columns).collect();
        return arch.dispatch(Share { tiles, left: &laid_out, right: &right.lines, out, add });
    }
    // Each share is a range of panels, and where there are too few of them, also a range of tiles.
    let across = shares.min(panels);
    let down = shares.div_ceil(across).min(tiles.count);
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
            shares.push(Share { tiles: part, left: &laid_out[start * inner..end * inner], right, out, add });
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
    inner: usize,
    count: usize,
}

impl Tiles {
    fn new(rows: usize, inner: usize, most: usize) -> Self {
        Self { rows, inner, count: rows.div_ceil(most) }
    }

    /// The first row of a tile.
    fn row(&self, tile: usize) -> usize {
        let (height, higher) = (self.rows / self.count, self.rows % self.count);
        tile * height + tile.min(higher)
    }

    /// `count` tiles from `first` on, or those that are left, as tiles of their own.
    fn part(&self, first: usize, count: usize) -> Self {
        let count = count.min(self.count - first);
        Self { rows: self.row(first + count) - self.row(first), inner: self.inner, count }
    }

    /// Each tile's numbers in the order in which they are used: the rows of its first column, of its second, and so on.
    fn lay_out(&self, left: Left<'_>, to: &mut [f32]) {
        for tile in 0..self.count {
            let (start, end) = (self.row(tile), self.row(tile + 1));
            let height = end - start;
            let to = to[start * self.inner..end * self.inner].chunks_exact_mut(height);
            match left {
                Left::Rows(values) => {
                    let values = &values[start * self.inner..end * self.inner];
                    to.enumerate()
                        .for_each(|(at, to)| to.iter_mut().zip(values[at..].iter().step_by(self.inner)).for_each(|(to, from)| *to = *from));
                }
                Left::Columns(values) => {
                    to.zip(values.chunks_exact(self.rows)).for_each(|(to, from)| to.copy_from_slice(&from[start..end]));
                }
            }
        }
    }
}

/// What one thread computes of a product.
struct Share<'a> {
    tiles: Tiles,
    /// The tiles, laid out.
    left: &'a [f32],
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
        let Self { tiles, left, right, mut out, add } = self;
        for (panel, lines) in right.chunks_exact(tiles.inner).enumerate() {
            for tile in 0..tiles.count {
                let (start, end) = (tiles.row(tile), tiles.row(tile + 1));
                let left = &left[start * tiles.inner..end * tiles.inner];
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
