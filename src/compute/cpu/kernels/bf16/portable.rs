//! The arithmetic of a bf16 product in plain f32: the bits of every unit. Knows
//! nothing of vectors.
//!
//! A block's even members are one chain of fused multiply-adds from zero, its odd members another;
//! their sum is added to the element. Results and operands too small for full precision are zeros
//! of their sign. This is `TDPBF16PS` in Intel's manual (volume 2, "TDPBF16PS—Dot Product of BF16
//! Tiles").

use std::ops::Range;

use super::blocks::{BLOCK, PAIRS};
use super::slab::Slab;
use crate::compute::cpu::kernels::panel::PANEL;

/// Makes numbers near the smallest ones large, exactly.
const SCALE: f32 = (1_u64 << 63) as f32;

/// A zero of its sign if it is subnormal.
pub(super) fn flushed(number: f32) -> f32 {
    if number.is_subnormal() { 0.0_f32.copysign(number) } else { number }
}

/// `left · right + sum`, rounded once, then flushed. None is subnormal.
pub(super) fn fused(left: f32, right: f32, sum: f32) -> f32 {
    let rounded = left.mul_add(right, sum);
    if rounded.abs() == f32::MIN_POSITIVE {
        // Below before it was rounded to the coarser steps of subnormal numbers: flushed.
        let scaled =
            if left.abs() < right.abs() { (left * SCALE).mul_add(right, sum * SCALE) } else { left.mul_add(right * SCALE, sum * SCALE) };
        if scaled.abs() < f32::MIN_POSITIVE * SCALE {
            return 0.0_f32.copysign(rounded);
        }
    }
    flushed(rounded)
}

/// An element with one block added, given each member's two factors.
pub(super) fn add_block(element: f32, members: impl Iterator<Item = [f32; 2]>) -> f32 {
    let mut sums = [0.0; 2];
    for (at, [left, right]) in members.enumerate() {
        let sum = &mut sums[at % 2];
        *sum = fused(flushed(left), flushed(right), *sum);
    }
    flushed(flushed(element) + flushed(sums[0] + sums[1]))
}

/// Adds a slab to its elements. Tiles are laid out as [`super::left::Rows::numbers`] does.
pub(super) fn multiply(mut slab: Slab<'_>, left: &[f32]) {
    for strip in 0..slab.strips.count() {
        for panel in 0..slab.panels {
            multiply_tile(&mut slab, left, strip, panel, 0..PANEL);
        }
    }
}

/// Adds a tile times some columns of a panel.
pub(super) fn multiply_tile(slab: &mut Slab<'_>, left: &[f32], strip: usize, panel: usize, columns: Range<usize>) {
    let (start, end) = (slab.strips.row(strip), slab.strips.row(strip + 1));
    let (depth, height) = (slab.whole * BLOCK, end - start);
    let left = &left[start * depth..][slab.blocks.start * BLOCK * height..slab.blocks.end * BLOCK * height];
    let lines = slab.lines(panel);
    for row in 0..height {
        let out = slab.out.row(start + row);
        for column in columns.start..columns.end.min(out.len() - panel * PANEL) {
            let element = &mut out[panel * PANEL + column];
            let before = if slab.add { *element } else { 0.0 };
            let blocks = lines.chunks_exact(PAIRS).zip(left.chunks_exact(BLOCK * height));
            *element = blocks.fold(before, |element, (lines, left)| {
                let rights = lines.iter().flat_map(|line| line.column(column));
                let lefts = left.iter().skip(row).step_by(height);
                add_block(element, lefts.zip(rights).map(|(left, right)| [*left, right]))
            });
        }
    }
}
