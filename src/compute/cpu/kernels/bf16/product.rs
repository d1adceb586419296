//! Products of bf16 factors: both laid out for the unit in use, and shared out among threads. Knows
//! nothing of units' arithmetic.
//!
//! All threads lay out the left factor and the right one, if it is not packed, some panels at a
//! time. Each thread then multiplies tiles with panels.

use std::cell::Cell;
use std::ops::Range;

use pulp::Arch;

use super::blocks::{BLOCK, PAIRS, blocks};
use super::flush::flushing;
use super::left::{Rows, Strips, TileBlock};
use super::pairs::{Pairs, Plain, lay_out};
use super::slab::Slab;
use super::unit::Unit;
use super::window::Window;
use super::{portable, tiles, vectors};
use crate::compute::cpu::kernels::left::Left;
use crate::compute::cpu::kernels::memory::{grown, with_memory};
use crate::compute::cpu::kernels::panel::PANEL;
use crate::compute::cpu::kernels::{threads, tile};

/// Multiply-adds worth another thread.
const WORTH_A_SHARE: usize = 1 << 15;

/// Shares of a large product for each thread.
const SHARES_A_THREAD: usize = 4;

/// Numbers of the left factor laid out at once: 8 MiB, or 16 as f32.
const LEFT_TOGETHER: usize = 1 << 22;

/// Lines of right factors laid out at once: 16 MiB.
const LINES_TOGETHER: usize = 1 << 17;

/// Numbers of a layout worth another thread.
const WORTH_LAYING_OUT: usize = 1 << 13;

/// Panels laid out together, since their rows lie together.
const LAID_OUT_TOGETHER: usize = 8;

/// More rows are many: a tile is used for several panels while it is near. Fewer all stay near, and
/// panels come from far.
const MANY_ROWS: usize = 64;

/// How a unit works.
struct Manner {
    arithmetic: Arithmetic,
    strips: Strips,
    /// The most blocks at once, so that numbers used again are still near.
    depth: usize,
    /// Panels at once for many rows: they stay in a CPU's second cache.
    panels: usize,
    /// Tiles multiplied at once.
    tiles: usize,
}

/// The arithmetic of a unit, by the layout of its left factor.
#[derive(Clone, Copy)]
enum Arithmetic {
    Numbers(Numbers),
    Tiles(Tiles),
}

#[derive(Clone, Copy)]
enum Numbers {
    Vectors(Arch),
    Portable,
}

#[derive(Clone, Copy)]
enum Tiles {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(test)]
    Software,
}

impl Manner {
    fn new(unit: Unit, rows: usize) -> Self {
        let even = |numbers: Numbers, most: usize| Self {
            arithmetic: Arithmetic::Numbers(numbers),
            strips: Strips::Even(tile::Tiles::new(rows, most)),
            depth: 24,
            panels: 4,
            tiles: 1,
        };
        match unit {
            // 32 rows of 512 are 32 KiB, and so are 512 rows of a panel.
            #[cfg(target_arch = "x86_64")]
            Unit::Amx => Self { arithmetic: Arithmetic::Tiles(Tiles::Amx), strips: Strips::Whole(rows), depth: 16, panels: 8, tiles: 2 },
            #[cfg(test)]
            Unit::Software => {
                Self { arithmetic: Arithmetic::Tiles(Tiles::Software), strips: Strips::Whole(rows), depth: 2, panels: 2, tiles: 2 }
            }
            Unit::Vectors(arch) => even(Numbers::Vectors(arch), arch.dispatch(tile::TileRows)),
            Unit::Portable => even(Numbers::Portable, 4),
        }
    }
}

/// A right factor.
#[derive(Clone, Copy)]
pub(in crate::compute::cpu::kernels) enum Factor<'a> {
    /// Laid out, one segment, of so many columns.
    Lines(&'a [Pairs], usize),
    Plain(Plain<'a>),
}

impl Factor<'_> {
    fn columns(&self) -> usize {
        match *self {
            Self::Lines(_, columns) | Self::Plain(Plain::Rows(_, columns) | Plain::Columns(_, columns)) => columns,
        }
    }
}

/// A left factor to be multiplied; no dimension is 0.
pub(in crate::compute::cpu::kernels) struct Product<'a> {
    pub(in crate::compute::cpu::kernels) left: Left<'a>,
    pub(in crate::compute::cpu::kernels) rows: usize,
    pub(in crate::compute::cpu::kernels) inner: usize,
    /// Where segments of the inner dimension begin.
    pub(in crate::compute::cpu::kernels) starts: &'a [usize],
    /// Whether elements count too.
    pub(in crate::compute::cpu::kernels) add: bool,
    pub(in crate::compute::cpu::kernels) threads: usize,
}

/// Some panels of a factor, and their elements.
struct Part<'r, 'o> {
    factor: Factor<'r>,
    panels: Range<usize>,
    out: Window<'o>,
}

/// A piece of work on layouts.
enum Piece<'a> {
    Numbers(usize, Strips, &'a mut [f32]),
    Tiles(usize, Strips, &'a mut [TileBlock]),
    Panels(Plain<'a>, Range<usize>, &'a mut [Pairs]),
}

/// Laid out tiles, and the arithmetic with them.
#[derive(Clone, Copy)]
enum LaidOut<'a> {
    Numbers(Numbers, &'a [f32]),
    Tiles(Tiles, &'a [TileBlock]),
}

/// A thread's share of a product.
struct Share<'a> {
    /// The first tile and its row, and the tiles counted from it.
    first: usize,
    row: usize,
    strips: Strips,
    lines: &'a [Pairs],
    panels: usize,
    out: Window<'a>,
}

thread_local! {
    static NUMBERS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static TILES: Cell<Vec<TileBlock>> = const { Cell::new(Vec::new()) };
    static LINES: Cell<Vec<Pairs>> = const { Cell::new(Vec::new()) };
}

impl Product<'_> {
    /// Computes each right factor's elements.
    ///
    /// # Panics
    /// When there are segments, and a factor was laid out without them.
    pub(in crate::compute::cpu::kernels) fn compute(&self, unit: Unit, rights: Vec<(Factor<'_>, &mut [f32])>) {
        let blocks = blocks(self.inner, self.starts);
        let laid_out = rights.iter().any(|(factor, _)| matches!(factor, Factor::Lines(..)));
        assert!(!laid_out || blocks.iter().all(|block| block.start.is_multiple_of(BLOCK)), "a factor laid out already has one segment");
        let whole = Rows { left: self.left, rows: self.rows, inner: self.inner, blocks: &blocks };
        let product = Prepared { product: self, manner: Manner::new(unit, self.rows), rows: whole };
        with_memory(&NUMBERS, |numbers| {
            with_memory(&TILES, |tiles| with_memory(&LINES, |lines| product.compute(parts(rights, blocks.len()), numbers, tiles, lines)))
        });
    }

    fn shares(&self) -> usize {
        if self.threads == 1 { 1 } else { SHARES_A_THREAD * self.threads }
    }
}

/// The factors in parts, each small enough to be laid out at once.
fn parts<'r, 'o>(rights: Vec<(Factor<'r>, &'o mut [f32])>, depth: usize) -> Vec<Vec<Part<'r, 'o>>> {
    let most = (LINES_TOGETHER / (depth * PAIRS)).max(1);
    let (mut parts, mut here, mut free) = (Vec::new(), Vec::new(), most);
    for (factor, out) in rights {
        let (panels, mut first) = (factor.columns().div_ceil(PANEL), 0);
        let mut rest = Window::new(out, factor.columns());
        while first < panels {
            let count = if matches!(factor, Factor::Lines(..)) { panels } else { free.min(panels - first) };
            let [out, after] = rest.split_columns((count * PANEL).min(factor.columns() - first * PANEL));
            here.push(Part { factor, panels: first..first + count, out });
            (rest, first) = (after, first + count);
            if matches!(factor, Factor::Plain(_)) {
                free -= count;
                if free == 0 {
                    parts.push(std::mem::take(&mut here));
                    free = most;
                }
            }
        }
    }
    parts.push(here);
    parts
}

/// A product by a unit.
struct Prepared<'a> {
    product: &'a Product<'a>,
    manner: Manner,
    rows: Rows<'a>,
}

impl Prepared<'_> {
    fn compute(&self, rounds: Vec<Vec<Part<'_, '_>>>, numbers: &mut Vec<f32>, tiles: &mut Vec<TileBlock>, lines: &mut Vec<Pairs>) {
        let (strips, depth) = (self.manner.strips, self.rows.blocks.len());
        let high =
            (LEFT_TOGETHER * strips.count() / (strips.rows() * depth * BLOCK)).max(self.manner.tiles).next_multiple_of(self.manner.tiles);
        for (round, parts) in rounds.into_iter().enumerate() {
            let (factors, mut outs): (Vec<_>, Vec<_>) = parts.into_iter().map(|part| ((part.factor, part.panels), part.out)).unzip();
            let plain = |(factor, panels): &(Factor<'_>, Range<usize>)| if matches!(factor, Factor::Plain(_)) { panels.len() } else { 0 };
            let lines = grown(lines, factors.iter().map(plain).sum::<usize>() * depth * PAIRS);
            for first in (0..strips.count()).step_by(high) {
                let block = strips.part(first, high);
                let mut pieces = Vec::new();
                // All of the left factor stays as it is.
                if round == 0 || high < strips.count() {
                    self.left_pieces(strips.row(first), block, numbers, tiles, &mut pieces);
                }
                if first == 0 {
                    self.right_pieces(&factors, lines, &mut pieces);
                }
                self.lay_out(pieces);
                let left = match self.manner.arithmetic {
                    Arithmetic::Numbers(arithmetic) => LaidOut::Numbers(arithmetic, numbers),
                    Arithmetic::Tiles(arithmetic) => LaidOut::Tiles(arithmetic, tiles),
                };
                let (here, after) = outs.into_iter().map(|out| out.split_rows(block.rows())).map(|[here, after]| (here, after)).unzip();
                outs = after;
                let mut shares = self.shares(block, &factors, lines, here);
                match &mut shares[..] {
                    [share] => self.compute_share(share, left),
                    shares => threads::each(shares, |share| self.compute_share(share, left)),
                }
            }
        }
    }

    /// Cuts the tiles from row `first` on into pieces.
    fn left_pieces<'a>(
        &self,
        first: usize,
        strips: Strips,
        numbers: &'a mut Vec<f32>,
        tiles: &'a mut Vec<TileBlock>,
        pieces: &mut Vec<Piece<'a>>,
    ) {
        let depth = self.rows.blocks.len();
        let count = (strips.rows() * depth * BLOCK / WORTH_LAYING_OUT).clamp(1, self.product.shares());
        // Where they come from columns, tiles' numbers lie together.
        let together = strips.count().div_ceil(count).next_multiple_of(8).min(strips.count());
        let (mut numbers, mut tiles) = match strips {
            Strips::Even(_) => (grown(numbers, strips.rows() * depth * BLOCK), &mut tiles[..0]),
            Strips::Whole(_) => (&mut numbers[..0], grown(tiles, strips.count() * depth)),
        };
        for strip in (0..strips.count()).step_by(together) {
            let part = strips.part(strip, together);
            let row = first + strips.row(strip);
            match part {
                Strips::Even(_) => {
                    let (here, after) = numbers.split_at_mut(part.rows() * depth * BLOCK);
                    numbers = after;
                    pieces.push(Piece::Numbers(row, part, here));
                }
                Strips::Whole(_) => {
                    let (here, after) = tiles.split_at_mut(part.count() * depth);
                    tiles = after;
                    pieces.push(Piece::Tiles(row, part, here));
                }
            }
        }
    }

    /// Cuts the panels into pieces, unless they are packed.
    fn right_pieces<'a>(&self, factors: &[(Factor<'a>, Range<usize>)], mut lines: &'a mut [Pairs], pieces: &mut Vec<Piece<'a>>) {
        let of_panel = self.rows.blocks.len() * PAIRS;
        for (factor, panels) in factors {
            let Factor::Plain(plain) = factor else { continue };
            let count = (panels.len() * of_panel * 2 * PANEL / WORTH_LAYING_OUT).clamp(1, self.product.shares());
            let together = panels.len().div_ceil(count).min(LAID_OUT_TOGETHER);
            for first in panels.clone().step_by(together) {
                let panels = first..(first + together).min(panels.end);
                let (here, after) = lines.split_at_mut(panels.len() * of_panel);
                lines = after;
                pieces.push(Piece::Panels(*plain, panels, here));
            }
        }
    }

    fn lay_out(&self, pieces: Vec<Piece<'_>>) {
        let work = |piece: Piece<'_>| match piece {
            Piece::Numbers(first, strips, to) => self.rows.numbers(first, strips, to),
            Piece::Tiles(first, strips, to) => self.rows.tile_blocks(first, strips, to),
            Piece::Panels(plain, panels, to) => lay_out(plain, self.rows.blocks, panels, to),
        };
        if self.product.threads == 1 || pieces.len() == 1 {
            pieces.into_iter().for_each(work);
        } else {
            threads::each(pieces, work);
        }
    }

    /// The shares of some tiles of all factors: by columns, since each share reads its part of the
    /// right factor, and where there are many rows by these too, so that shares come out even.
    fn shares<'a>(
        &self,
        strips: Strips,
        factors: &[(Factor<'a>, Range<usize>)],
        mut lines: &'a [Pairs],
        outs: Vec<Window<'a>>,
    ) -> Vec<Share<'a>> {
        let of_panel = self.rows.blocks.len() * PAIRS;
        let all: usize = factors.iter().map(|(_, panels)| panels.len()).sum();
        let most = (strips.rows() * all * PANEL * self.product.inner / WORTH_A_SHARE).clamp(1, self.product.shares());
        let mut shares = Vec::with_capacity(2 * most + factors.len());
        for ((factor, panels), out) in factors.iter().zip(outs) {
            let of_factor = match factor {
                Factor::Lines(lines, _) => &lines[panels.start * of_panel..],
                Factor::Plain(_) => {
                    let (here, after) = lines.split_at(panels.len() * of_panel);
                    lines = after;
                    here
                }
            };
            let count = (most * panels.len()).div_ceil(all).max(1);
            let wide = panels.len().div_ceil(count.min(panels.len()));
            let across = panels.len().div_ceil(wide);
            let down = if strips.rows() > MANY_ROWS { count.div_ceil(across).min(strips.count()) } else { 1 };
            let high = strips.count().div_ceil(down).next_multiple_of(self.manner.tiles);
            let mut below = out;
            for first in (0..strips.count()).step_by(high) {
                let part = strips.part(first, high);
                let [mut rest, after] = below.split_rows(part.rows());
                below = after;
                for panel in (0..panels.len()).step_by(wide) {
                    let [here, right] = rest.split_columns_at_most(wide * PANEL);
                    rest = right;
                    let count = wide.min(panels.len() - panel);
                    let (row, lines) = (strips.row(first), &of_factor[panel * of_panel..]);
                    shares.push(Share { first, row, strips: part, lines, panels: count, out: here });
                }
            }
        }
        shares
    }

    fn compute_share(&self, share: &mut Share<'_>, left: LaidOut<'_>) {
        match left {
            LaidOut::Tiles(arithmetic, left) => {
                let depth = self.rows.blocks.len();
                let left = &left[share.first * depth..][..share.strips.count() * depth];
                match arithmetic {
                    #[cfg(target_arch = "x86_64")]
                    Tiles::Amx => {
                        // SAFETY: the unit was found usable.
                        #[allow(unsafe_code)]
                        let mut unit = unsafe { super::amx::Amx::configured() };
                        self.each_slab(share, |mut slab| tiles::multiply(&mut unit, &mut slab, left));
                    }
                    #[cfg(test)]
                    Tiles::Software => {
                        self.each_slab(share, |mut slab| tiles::multiply(&mut super::software::Software::default(), &mut slab, left));
                    }
                }
            }
            LaidOut::Numbers(arithmetic, left) => {
                let left = self.numbers_of(share, left);
                match arithmetic {
                    Numbers::Vectors(arch) => {
                        flushing(|| self.each_slab(share, |slab| multiply_with(arch, vectors::Times { slab, left })));
                    }
                    Numbers::Portable => self.each_slab(share, |slab| portable::multiply(slab, left)),
                }
            }
        }
    }

    /// The numbers of a share.
    fn numbers_of<'a>(&self, share: &Share<'_>, left: &'a [f32]) -> &'a [f32] {
        let depth = self.rows.blocks.len() * BLOCK;
        &left[share.row * depth..][..share.strips.rows() * depth]
    }

    /// Calls `work` for some panels and blocks after the other.
    fn each_slab(&self, share: &mut Share<'_>, mut work: impl FnMut(Slab<'_>)) {
        let whole = self.rows.blocks.len();
        let depth = whole.div_ceil(whole.div_ceil(self.manner.depth));
        let together = if share.strips.rows() > MANY_ROWS { self.manner.panels } else { 1 };
        for first in (0..share.panels).step_by(together) {
            let panels = together.min(share.panels - first);
            for start in (0..whole).step_by(depth) {
                let [_, out] = share.out.borrowed().split_columns(first * PANEL);
                let [out, _] = out.split_columns_at_most(panels * PANEL);
                work(Slab {
                    strips: share.strips,
                    whole,
                    blocks: start..(start + depth).min(whole),
                    lines: &share.lines[first * whole * PAIRS..],
                    panels,
                    out,
                    add: self.product.add || start > 0,
                });
            }
        }
    }
}

/// Not inlined: the arithmetic mode is another one in it.
#[inline(never)]
fn multiply_with(arch: pulp::Arch, times: vectors::Times<'_>) {
    arch.dispatch(times);
}
