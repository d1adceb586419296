//! A bf16 product in a matrix unit's tiles. Knows nothing of instructions or threads.
//!
//! Two tiles of rows times two halves of a panel are four tiles of elements. They stay in the unit
//! along all blocks of a slab; for each block four tiles of factors are read and multiplied four
//! times. At 16 cycles a multiplication these are 64 cycles for 4 KiB: 2 KiB of rows, which stay in
//! the first cache, and 2 KiB of a panel from the second one, 32 bytes a cycle. Elements are read
//! and written once a slab, 64 lines each way, beside 64 cycles times 16 blocks. Up to 16 rows take
//! 52 cycles a block, the latency of two chains; 2 KiB from memory take longer.
//!
//! Packing a number took 0.45 ns with AVX2, new memory included: as long as 430 multiplications in
//! the unit. Factors used often are worth packing.

use super::blocks::PAIRS;
use super::left::{TILE, TileBlock};
use super::pairs::Pairs;
use super::slab::Slab;
use super::window::Window;
use crate::compute::cpu::kernels::panel::PANEL;
use crate::compute::cpu::kernels::tile::{CACHE_LINE, prefetch};

/// Eight tiles of [`TILE`] rows of 64 bytes, numbered from 0, and what can be done to them.
pub(super) trait TileUnit {
    /// A tile of zeros.
    fn zero<const TO: usize>(&mut self);

    /// Reads elements.
    ///
    /// # Safety
    /// [`TILE`] rows of as many numbers, so many bytes apart, can be read.
    #[allow(unsafe_code)]
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride_bytes: usize);

    /// Writes elements.
    ///
    /// # Safety
    /// [`TILE`] rows of as many numbers, so many bytes apart, can be written.
    #[allow(unsafe_code)]
    unsafe fn store<const FROM: usize>(&mut self, to: *mut f32, stride_bytes: usize);

    /// Reads a block of the left factor.
    fn left<const TO: usize>(&mut self, block: &TileBlock);

    /// Reads the first half, or the second, of a panel's block.
    fn right<const TO: usize>(&mut self, lines: &[Pairs; PAIRS], half: usize);

    /// Adds the product of a left and a right block to elements.
    fn multiply<const TO: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
}

/// A tile's elements, where some of them lie outside.
#[repr(C, align(64))]
struct Edge([[f32; TILE]; TILE]);

/// Memory that is fetched while blocks are multiplied.
struct Ahead {
    at: *const u8,
    /// Cache lines for each block.
    lines: usize,
}

impl Ahead {
    /// One part in `of` of what the next blocks have.
    fn new(lines: &[Pairs], blocks: usize, part: usize, of: usize) -> Self {
        let lines_of_block = size_of::<[Pairs; PAIRS]>() / CACHE_LINE;
        let count = lines_of_block.div_ceil(of);
        let start = part * count * blocks * CACHE_LINE;
        // The last parts are empty if lines do not divide evenly.
        let count = if part * count < lines_of_block { count } else { 0 };
        Self { at: lines.as_ptr().cast::<u8>().wrapping_add(start), lines: count }
    }

    #[inline(always)]
    fn fetch(&mut self) {
        for _ in 0..self.lines {
            prefetch(self.at);
            self.at = self.at.wrapping_add(CACHE_LINE);
        }
    }
}

/// Adds a slab to its elements, given its tiles: `[tiles, blocks]`.
pub(super) fn multiply(unit: &mut impl TileUnit, slab: &mut Slab<'_>, left: &[TileBlock]) {
    let count = slab.strips.count();
    for strip in (0..count).step_by(2) {
        for panel in 0..slab.panels {
            let columns = slab.out.columns() - panel * PANEL;
            match (count - strip, columns) {
                (1, ..=TILE) => square::<_, 1, 1>(unit, slab, left, strip, panel),
                (1, _) => square::<_, 1, 2>(unit, slab, left, strip, panel),
                (_, ..=TILE) => square::<_, 2, 1>(unit, slab, left, strip, panel),
                _ => square::<_, 2, 2>(unit, slab, left, strip, panel),
            }
        }
    }
}

/// `HIGH` tiles of rows times `WIDE` halves of a panel.
#[inline(always)]
fn square<U: TileUnit, const HIGH: usize, const WIDE: usize>(
    unit: &mut U,
    slab: &mut Slab<'_>,
    left: &[TileBlock],
    strip: usize,
    panel: usize,
) {
    let lines = slab.lines(panel).as_chunks::<PAIRS>().0;
    let blocks_of = |strip: usize| &left[strip * slab.whole..][slab.blocks.clone()];
    let (upper, lower) = (blocks_of(strip), if HIGH == 2 { blocks_of(strip + 1) } else { &[] });
    let mut ahead = Ahead::new(slab.lines_ahead(panel), lines.len(), strip / 2, slab.strips.count().div_ceil(2));
    let (row, column, add) = (strip * TILE, panel * PANEL, slab.add);
    let out = &mut slab.out;
    begin::<_, 0>(unit, out, [row, column], add);
    if WIDE == 2 {
        begin::<_, 1>(unit, out, [row, column + TILE], add);
    }
    if HIGH == 2 {
        begin::<_, 2>(unit, out, [row + TILE, column], add);
        if WIDE == 2 {
            begin::<_, 3>(unit, out, [row + TILE, column + TILE], add);
        }
    }
    for (at, (upper, lines)) in upper.iter().zip(lines).enumerate() {
        unit.left::<4>(upper);
        unit.right::<6>(lines, 0);
        unit.multiply::<0, 4, 6>();
        if WIDE == 2 {
            unit.right::<7>(lines, 1);
            unit.multiply::<1, 4, 7>();
        }
        if HIGH == 2 {
            unit.left::<5>(&lower[at]);
            unit.multiply::<2, 5, 6>();
            if WIDE == 2 {
                unit.multiply::<3, 5, 7>();
            }
        }
        ahead.fetch();
    }
    end::<_, 0>(unit, out, [row, column]);
    if WIDE == 2 {
        end::<_, 1>(unit, out, [row, column + TILE]);
    }
    if HIGH == 2 {
        end::<_, 2>(unit, out, [row + TILE, column]);
        if WIDE == 2 {
            end::<_, 3>(unit, out, [row + TILE, column + TILE]);
        }
    }
}

/// Elements before the first block; those outside are 0.
#[inline(always)]
#[allow(unsafe_code)]
fn begin<U: TileUnit, const TO: usize>(unit: &mut U, out: &mut Window<'_>, [row, column]: [usize; 2], add: bool) {
    if !add {
        unit.zero::<TO>();
    } else if let Some((from, stride_bytes)) = out.square(row, column, TILE) {
        // SAFETY: a square of the window.
        unsafe { unit.load::<TO>(from, stride_bytes) };
    } else {
        let mut edge = Edge([[0.0; TILE]; TILE]);
        for (to, row) in edge.0.iter_mut().zip(row..out.rows()) {
            to.iter_mut().zip(&out.row(row)[column..]).for_each(|(to, element)| *to = *element);
        }
        // SAFETY: the edge has as many rows of as many numbers.
        unsafe { unit.load::<TO>(edge.0.as_ptr().cast(), size_of::<[f32; TILE]>()) };
    }
}

/// Elements after the last block.
#[inline(always)]
#[allow(unsafe_code)]
fn end<U: TileUnit, const FROM: usize>(unit: &mut U, out: &mut Window<'_>, [row, column]: [usize; 2]) {
    if let Some((to, stride_bytes)) = out.square(row, column, TILE) {
        // SAFETY: a square of the window.
        unsafe { unit.store::<FROM>(to, stride_bytes) };
    } else {
        let mut edge = Edge([[0.0; TILE]; TILE]);
        // SAFETY: the edge has as many rows of as many numbers.
        unsafe { unit.store::<FROM>(edge.0.as_mut_ptr().cast(), size_of::<[f32; TILE]>()) };
        for (from, row) in edge.0.iter().zip(row..out.rows()) {
            out.row(row)[column..].iter_mut().zip(from).for_each(|(element, from)| *element = *from);
        }
    }
}
