//! The right factor of a product, laid out so that the innermost loop reads memory from front to
//! back: in panels of [`PANEL`] columns, each row after row. Knows nothing of what it is multiplied
//! with.

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::bf16::{self, Pairs};
use super::panel::{PANEL, interleave};

/// Panels that are laid out at once.
const PANELS_TOGETHER: usize = 8;

/// Rows of a panel that are laid out at once when they are columns of what they come from.
const BLOCK: usize = 64;

/// The bits of a f32 that a bf16 does not have.
const LOW_HALF: u32 = 0xffff;

/// A matrix `[rows, columns]` in panels.
#[derive(Clone, Debug)]
pub struct Packed {
    rows: usize,
    columns: usize,
    lines: Lines,
}

/// The rows of all panels: `[panels, rows]`; columns past the end are 0.
#[derive(Clone, Debug)]
pub(super) enum Lines {
    /// In f32.
    Singles(Vec<Single>),
    /// In bf16, to be multiplied with f32.
    Halves(Vec<Halves>),
    /// In bf16, to be multiplied with bf16: two rows a line.
    Pairs(Vec<Pairs>),
}

/// One row of a panel, a whole number of cache lines.
pub(super) trait PanelRow: Sync {
    /// Two vectors of its columns: from `vector` times the lanes of a vector on, and those half a
    /// panel further.
    fn pair<S: Simd>(&self, simd: S, vector: usize) -> [S::f32s; 2];
}

/// Column after column.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Single([f32; PANEL]);

/// The upper halves of two f32, the lower halves of which are 0: low that of a column of the
/// panel's first half, high that of the column half a panel further.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Halves([u32; PANEL / 2]);

impl PanelRow for Single {
    #[inline(always)]
    fn pair<S: Simd>(&self, _: S, vector: usize) -> [S::f32s; 2] {
        let vectors = S::as_simd_f32s(&self.0).0;
        [vectors[vector], vectors[vector + PANEL / 2 / S::F32_LANES]]
    }
}

impl PanelRow for Halves {
    #[inline(always)]
    fn pair<S: Simd>(&self, simd: S, vector: usize) -> [S::f32s; 2] {
        let both = S::as_simd_u32s(&self.0).0[vector];
        let first = simd.wrapping_dyn_shl_u32s(both, simd.splat_u32s(u32::BITS / 2));
        let second = simd.and_u32s(both, simd.splat_u32s(!LOW_HALF));
        [simd.transmute_f32s_u32s(first), simd.transmute_f32s_u32s(second)]
    }
}

impl Halves {
    fn of(line: &Single) -> Self {
        let (first, second) = line.0.split_at(PANEL / 2);
        Self(std::array::from_fn(|at| first[at].to_bits() >> (u32::BITS / 2) | second[at].to_bits()))
    }

    fn number(&self, column: usize) -> f32 {
        let both = self.0[column % (PANEL / 2)];
        f32::from_bits(if column < PANEL / 2 { both << (u32::BITS / 2) } else { both & !LOW_HALF })
    }
}

impl Single {
    /// Of at most [`PANEL`] numbers; those that are missing are 0.
    pub(super) fn of(numbers: &[f32]) -> Self {
        match numbers.try_into() {
            Ok(whole) => Self(whole),
            Err(_) => {
                let mut line = Self::default();
                line.0[..numbers.len()].copy_from_slice(numbers);
                line
            }
        }
    }
}

/// Lays out a panel whose columns, of `rows` numbers each, are `values`: its rows from `first` on,
/// as many as there are lines.
pub(super) fn transpose(values: &[f32], rows: usize, first: usize, lines: &mut [Single]) {
    // Some lines at once, which stay near while the columns are gone through.
    for (block, lines) in lines.chunks_mut(BLOCK).enumerate() {
        let first = first + block * BLOCK;
        let columns: [&[f32]; PANEL] = std::array::from_fn(|column| match values.get(column * rows..(column + 1) * rows) {
            Some(values) => &values[first..first + lines.len()],
            None => &[0.0; BLOCK][..lines.len()],
        });
        interleave(columns, lines, |line| &mut line.0);
    }
}

impl Packed {
    /// The matrices `[rows, columns]` of `parts` beside each other, each given with its number of
    /// columns, row after row.
    ///
    /// # Panics
    /// When a part has not `rows` times its columns numbers.
    pub fn of_rows(rows: usize, parts: &[(&[f32], usize)]) -> Self {
        assert!(parts.iter().all(|(values, columns)| values.len() == rows * columns), "expected parts of {rows} rows");
        let columns = parts.iter().map(|(_, columns)| columns).sum();
        Self::of_panels(rows, columns, |panels, lines| {
            // Row by row for some panels at once: a row's numbers lie together.
            let wanted = panels.start * PANEL..panels.end * PANEL;
            let mut start = 0;
            for (values, columns) in parts {
                // What the panels have of this part: columns `from` to `to` of it.
                let from = wanted.start.clamp(start, start + columns) - start;
                let to = wanted.end.clamp(start, start + columns) - start;
                let place = (start + from).saturating_sub(wanted.start);
                if from < to {
                    for (row, values) in values.chunks_exact(*columns).enumerate() {
                        let mut rest = &values[from..to];
                        let mut place = place;
                        while !rest.is_empty() {
                            let (panel, column) = (place / PANEL, place % PANEL);
                            let (here, after) = rest.split_at(rest.len().min(PANEL - column));
                            let line = &mut lines[panel * rows + row].0;
                            match here.try_into() {
                                Ok(whole) => *line = whole,
                                Err(_) => line[column..column + here.len()].copy_from_slice(here),
                            }
                            (rest, place) = (after, place + here.len());
                        }
                    }
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
        Self::of_panels(rows, columns, |panels, lines| {
            for (panel, lines) in panels.zip(lines.chunks_exact_mut(rows)) {
                let first = panel * PANEL;
                transpose(&values[first * rows..(first + PANEL).min(columns) * rows], rows, 0, lines);
            }
        })
    }

    /// Has panels of zeros filled, some at once: `[panels, rows]`.
    fn of_panels(rows: usize, columns: usize, fill: impl Fn(Range<usize>, &mut [Single]) + Sync) -> Self {
        let panels = columns.div_ceil(PANEL);
        let mut lines = vec![Single([0.0; PANEL]); rows * panels];
        if rows > 0 {
            let together = PANELS_TOGETHER.min(panels.div_ceil(rayon::current_num_threads())).max(1);
            // Fewer lines than that are not worth a thread's while.
            let pieces = lines.par_chunks_mut(rows * together).with_min_len(512usize.div_ceil(rows * together));
            pieces.enumerate().for_each(|(piece, lines)| {
                let first = piece * together;
                fill(first..first + lines.len() / rows, lines);
            });
        }
        Self { rows, columns, lines: Lines::Singles(lines) }
    }

    /// The same numbers in half the memory, if none of them has more digits than a bf16: products
    /// with it are the same bits, and read half as much.
    pub fn narrowed(self) -> Self {
        let Lines::Singles(lines) = &self.lines else { return self };
        if lines.par_iter().any(|line| line.0.iter().any(|number| number.to_bits() & LOW_HALF != 0)) {
            return self;
        }
        let lines = lines.par_iter().map(Halves::of).collect();
        Self { lines: Lines::Halves(lines), ..self }
    }

    /// The numbers rounded to bf16: products with it are of two factors in bf16.
    pub fn rounded(self) -> Self {
        let Self { rows, columns, lines } = self;
        fn pairs<L: Sync>(rows: usize, lines: &[L], numbers: impl Fn(&L) -> [f32; PANEL] + Sync) -> Vec<Pairs> {
            let of_panel = bf16::lines(rows);
            let mut pairs = vec![Pairs::default(); lines.len() / rows.max(1) * of_panel];
            let panels = pairs.par_chunks_mut(of_panel.max(1)).zip(lines.par_chunks(rows.max(1)));
            panels.for_each(|(to, lines)| {
                for (to, lines) in to.iter_mut().zip(lines.chunks(2)) {
                    let row = |row: usize| lines.get(row).map_or([0.0; PANEL], &numbers);
                    *to = Pairs::of_rows(&row(0), &row(1));
                }
            });
            pairs
        }
        let lines = match lines {
            Lines::Singles(lines) => pairs(rows, &lines, |line| line.0),
            Lines::Halves(lines) => pairs(rows, &lines, |line| std::array::from_fn(|column| line.number(column))),
            Lines::Pairs(lines) => lines,
        };
        Self { rows, columns, lines: Lines::Pairs(lines) }
    }

    /// Copies one column to `to`.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, column: usize, to: &mut [f32]) {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        let (panel, column) = (column / PANEL, column % PANEL);
        match &self.lines {
            Lines::Singles(lines) => {
                to.iter_mut().zip(&lines[panel * self.rows..][..self.rows]).for_each(|(to, line)| *to = line.0[column]);
            }
            Lines::Halves(lines) => {
                to.iter_mut().zip(&lines[panel * self.rows..][..self.rows]).for_each(|(to, line)| *to = line.number(column));
            }
            Lines::Pairs(lines) => {
                let numbers = lines[panel * bf16::lines(self.rows)..].iter().flat_map(|line| line.column(column));
                to[..self.rows].iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
            }
        }
    }

    /// All panels' rows.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
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
