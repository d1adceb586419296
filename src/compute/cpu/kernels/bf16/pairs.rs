//! The right factor of a bf16 product: in panels of [`PANEL`] columns, two members of the inner
//! dimension beside each other. Knows nothing of left factors.
//!
//! A panel has as many lines as its blocks have pairs; missing ones are 0. A matrix unit reads
//! a block's lines as they are; a vector makes two of a line's with a shift and a mask.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::blocks::{BLOCK, PAIRS};
use super::rounding::{pairs_of_neighbours, pairs_of_rows, parts, transpose};
use crate::compute::cpu::kernels::arch;
use crate::compute::cpu::kernels::panel::PANEL;

/// Two rows of a panel: the lower halves are the first's, the upper halves the second's.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(in crate::compute::cpu::kernels) struct Pairs(pub(super) [u32; PANEL]);

impl Default for Pairs {
    fn default() -> Self {
        Self([0; PANEL])
    }
}

impl Pairs {
    /// Two rows, rounded.
    pub(in crate::compute::cpu::kernels) fn of_rows(low: &[f32; PANEL], high: &[f32; PANEL]) -> Self {
        Self(pairs_of_rows(low, high))
    }

    /// The two numbers of a column.
    pub(in crate::compute::cpu::kernels) fn column(&self, column: usize) -> [f32; 2] {
        parts(self.0[column])
    }
}

/// A matrix `[inner, columns]` as it is given.
#[derive(Clone, Copy)]
pub(in crate::compute::cpu::kernels) enum Plain<'a> {
    /// Row after row, each of so many columns.
    Rows(&'a [f32], usize),
    /// So many columns, one after the other.
    Columns(&'a [f32], usize),
}

/// The lines of a panel with an inner dimension of one segment.
pub(in crate::compute::cpu::kernels) fn lines(inner: usize) -> usize {
    inner.div_ceil(BLOCK) * PAIRS
}

/// Lays out some panels: `[panels, blocks, PAIRS]`.
pub(super) fn lay_out(matrix: Plain<'_>, blocks: &[Range<usize>], panels: Range<usize>, lines: &mut [Pairs]) {
    struct LayOut<'a>(Plain<'a>, &'a [Range<usize>], Range<usize>, &'a mut [Pairs]);
    impl WithSimd for LayOut<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(matrix, blocks, panels, lines) = self;
            match matrix {
                Plain::Rows(values, columns) => rows(values, columns, blocks, panels, lines),
                Plain::Columns(values, count) => columns(values, count, blocks, panels, lines),
            }
        }
    }
    arch().dispatch(LayOut(matrix, blocks, panels, lines));
}

/// Row by row for all panels: a row's numbers lie together.
#[inline(always)]
fn rows(values: &[f32], columns: usize, blocks: &[Range<usize>], panels: Range<usize>, lines: &mut [Pairs]) {
    let of_panel = blocks.len() * PAIRS;
    let wanted = panels.start * PANEL..(panels.end * PANEL).min(columns);
    for (at, block) in blocks.iter().enumerate() {
        for pair in 0..PAIRS {
            let member = block.start + 2 * pair;
            let (low, high) = (row(values, columns, member, block.end), row(values, columns, member + 1, block.end));
            let (low, high) = (low.get(wanted.clone()).unwrap_or_default(), high.get(wanted.clone()).unwrap_or_default());
            for panel in 0..panels.len() {
                lines[panel * of_panel + at * PAIRS + pair].0 = pairs_from(low, high, panel * PANEL);
            }
        }
    }
}

/// A row before `end`; later ones are missing.
#[inline(always)]
fn row(values: &[f32], columns: usize, row: usize, end: usize) -> &[f32] {
    if row < end { &values[row * columns..][..columns] } else { &[] }
}

/// The pairs of two rows from a column on; missing numbers are 0.
#[inline(always)]
pub(super) fn pairs_from(low: &[f32], high: &[f32], column: usize) -> [u32; PANEL] {
    let (low, high) = (low.get(column..).unwrap_or_default(), high.get(column..).unwrap_or_default());
    match (low.first_chunk(), high.first_chunk()) {
        (Some(low), Some(high)) => pairs_of_rows(low, high),
        _ => pairs_of_rows(&padded(low), &padded(high)),
    }
}

/// The first numbers of a row; missing ones are 0.
#[cold]
fn padded(row: &[f32]) -> [f32; PANEL] {
    let mut numbers = [0.0; PANEL];
    numbers.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
    numbers
}

/// Block by block: a column's numbers lie together.
#[inline(always)]
fn columns(values: &[f32], count: usize, blocks: &[Range<usize>], panels: Range<usize>, lines: &mut [Pairs]) {
    let inner = values.len().checked_div(count).unwrap_or(0);
    for (panel, lines) in panels.zip(lines.chunks_exact_mut(blocks.len() * PAIRS)) {
        let here = PANEL.min(count - panel * PANEL);
        let mut pairs = [[0; PAIRS]; PANEL];
        for (block, lines) in blocks.iter().zip(lines.as_chunks_mut::<PAIRS>().0) {
            for (column, pairs) in pairs.iter_mut().enumerate().take(here) {
                let column = &values[(panel * PANEL + column) * inner..][block.clone()];
                *pairs = pairs_of_block(column);
            }
            let mut transposed = [[0; PANEL]; PAIRS];
            transpose(&pairs, &mut transposed);
            for (line, pairs) in lines.iter_mut().zip(&transposed) {
                line.0 = *pairs;
            }
        }
    }
}

/// The pairs of a block's neighbours; missing numbers are 0.
#[inline(always)]
pub(super) fn pairs_of_block(numbers: &[f32]) -> [u32; PAIRS] {
    match numbers.first_chunk() {
        Some(whole) => pairs_of_neighbours(whole),
        None => pairs_of_neighbours(&padded(numbers)),
    }
}
