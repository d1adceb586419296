//! The left factor of a bf16 product, laid out for a unit. Knows nothing of the right factor.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::blocks::{BLOCK, PAIRS};
use super::pairs::{pairs_from, pairs_of_block};
use super::rounding::{rounded, transpose};
use crate::compute::cpu::kernels::left::Left;
use crate::compute::cpu::kernels::panel::{PANEL, interleave};
use crate::compute::cpu::kernels::{arch, tile};

/// The most rows of a matrix unit's tile.
pub(super) const TILE: usize = 16;

/// A block of a matrix unit's rows: each row's pairs. Missing rows are 0.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct TileBlock(pub(super) [[u32; PAIRS]; TILE]);

impl Default for TileBlock {
    fn default() -> Self {
        Self([[0; PAIRS]; TILE])
    }
}

/// Rows cut into tiles.
#[derive(Clone, Copy)]
pub(super) enum Strips {
    /// Of nearly equal height, at most the given.
    Even(tile::Tiles),
    /// [`TILE`] rows each, of so many rows.
    Whole(usize),
}

impl Strips {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Even(tiles) => tiles.count,
            Self::Whole(rows) => rows.div_ceil(TILE),
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Even(tiles) => tiles.rows,
            Self::Whole(rows) => *rows,
        }
    }

    /// The first row of a tile.
    pub(super) fn row(&self, at: usize) -> usize {
        match self {
            Self::Even(tiles) => tiles.row(at),
            Self::Whole(rows) => (at * TILE).min(*rows),
        }
    }

    /// At most `count` tiles from `first` on, as tiles of their own.
    pub(super) fn part(&self, first: usize, count: usize) -> Self {
        match self {
            Self::Even(tiles) => Self::Even(tiles.part(first, count)),
            Self::Whole(_) => Self::Whole(self.row(first + count) - self.row(first)),
        }
    }
}

/// `[rows, inner]` of a left factor.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) left: Left<'a>,
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) blocks: &'a [Range<usize>],
}

impl Rows<'_> {
    /// The tiles from row `first` on as f32, each in the order in which its numbers are used: block
    /// after block, the rows of the first column, of the second, and so on.
    pub(super) fn numbers(self, first: usize, strips: Strips, to: &mut [f32]) {
        struct LayOut<'a>(Rows<'a>, usize, Strips, &'a mut [f32]);
        impl WithSimd for LayOut<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) {
                let Self(rows, first, strips, to) = self;
                for strip in 0..strips.count() {
                    let (start, end) = (strips.row(strip), strips.row(strip + 1));
                    let depth = rows.blocks.len() * BLOCK;
                    let to = &mut to[start * depth..end * depth];
                    match end - start {
                        1 => rows.strip::<1>(first + start, to),
                        2 => rows.strip::<2>(first + start, to),
                        3 => rows.strip::<3>(first + start, to),
                        4 => rows.strip::<4>(first + start, to),
                        5 => rows.strip::<5>(first + start, to),
                        6 => rows.strip::<6>(first + start, to),
                        7 => rows.strip::<7>(first + start, to),
                        8 => rows.strip::<8>(first + start, to),
                        9 => rows.strip::<9>(first + start, to),
                        10 => rows.strip::<10>(first + start, to),
                        11 => rows.strip::<11>(first + start, to),
                        _ => rows.strip::<12>(first + start, to),
                    }
                }
            }
        }
        arch().dispatch(LayOut(self, first, strips, to));
    }

    /// The tile of the `ROWS` rows from `first` on.
    #[inline(always)]
    fn strip<const ROWS: usize>(&self, first: usize, to: &mut [f32]) {
        let (columns, _) = to.as_chunks_mut::<ROWS>();
        for (block, to) in self.blocks.iter().zip(columns.as_chunks_mut::<BLOCK>().0) {
            let (whole, past) = to.split_at_mut(block.len());
            match self.left {
                Left::Rows(values) => {
                    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &values[(first + row) * self.inner..][block.clone()]);
                    interleave(rows, whole, |column| column);
                }
                Left::Columns(values) => {
                    for (to, values) in whole.iter_mut().zip(values[block.start * self.rows + first..].chunks(self.rows)) {
                        if let Some(values) = values.first_chunk() {
                            *to = *values;
                        }
                    }
                }
            }
            whole.as_flattened_mut().iter_mut().for_each(|number| *number = rounded(*number));
            past.as_flattened_mut().fill(0.0);
        }
    }

    /// The tiles of a matrix unit from row `first` on: `[tiles, blocks]`.
    pub(super) fn tile_blocks(self, first: usize, strips: Strips, to: &mut [TileBlock]) {
        struct LayOut<'a>(Rows<'a>, usize, usize, &'a mut [TileBlock]);
        impl WithSimd for LayOut<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) {
                let Self(rows, first, count, to) = self;
                match rows.left {
                    Left::Rows(values) => rows.tiles_of_rows(values, first, count, to),
                    Left::Columns(values) => rows.tiles_of_columns(values, first, count, to),
                }
            }
        }
        arch().dispatch(LayOut(self, first, strips.rows(), to));
    }

    #[inline(always)]
    fn tiles_of_rows(&self, values: &[f32], first: usize, count: usize, to: &mut [TileBlock]) {
        for (tile, to) in to.chunks_exact_mut(self.blocks.len()).enumerate() {
            for row in 0..TILE {
                let Some(values) = (tile * TILE + row < count).then(|| &values[(first + tile * TILE + row) * self.inner..][..self.inner])
                else {
                    to.iter_mut().for_each(|block| block.0[row] = [0; PAIRS]);
                    continue;
                };
                for (block, to) in self.blocks.iter().zip(&mut *to) {
                    to.0[row] = pairs_of_block(&values[block.clone()]);
                }
            }
        }
    }

    /// Two tiles at once: as many rows as a line has columns. Block after block: a member's numbers
    /// for all tiles lie together.
    #[inline(always)]
    fn tiles_of_columns(&self, values: &[f32], first: usize, count: usize, to: &mut [TileBlock]) {
        let depth = self.blocks.len();
        for (at, block) in self.blocks.iter().enumerate() {
            for (couple, to) in to.chunks_mut(2 * depth).enumerate() {
                let rows = &(couple * PANEL..count.min((couple + 1) * PANEL));
                let mut pairs = [[0; PANEL]; PAIRS];
                for (pair, to) in pairs.iter_mut().enumerate() {
                    let member = block.start + 2 * pair;
                    let low = self.member(values, member, block.end, first, rows);
                    let high = self.member(values, member + 1, block.end, first, rows);
                    *to = pairs_from(low, high, 0);
                }
                let mut transposed = [[0; PAIRS]; PANEL];
                transpose(&pairs, &mut transposed);
                let (low, high) = transposed.split_at(TILE);
                let (tiles, second) = to.split_at_mut(depth);
                tiles[at].0.copy_from_slice(low);
                if let Some(to) = second.get_mut(at) {
                    to.0.copy_from_slice(high);
                }
            }
        }
    }

    /// A member's numbers for some rows, counted from row `first`; none from member `end` on.
    #[inline(always)]
    fn member<'v>(&self, values: &'v [f32], member: usize, end: usize, first: usize, rows: &Range<usize>) -> &'v [f32] {
        if member < end { &values[member * self.rows + first..][rows.clone()] } else { &[] }
    }
}
