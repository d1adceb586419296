//! Columns of one matrix as matrices of their own, and back. Knows nothing of their meaning.

use crate::compute::cpu::kernels::{Buffer, Memory};

/// The first columns, the next and so on, of these `widths`.
///
/// # Shapes
/// - all: `[rows, sum of widths]`
/// - output: `[rows, width]` each
pub(super) fn split<const N: usize>(all: &[f32], widths: [usize; N], memory: &Memory) -> [Buffer; N] {
    let whole: usize = widths.iter().sum();
    let rows = all.len() / whole.max(1);
    let mut first = 0;
    widths.map(|width| {
        let mut part = memory.any(rows * width);
        let lines = part.chunks_exact_mut(width.max(1)).zip(all.chunks_exact(whole.max(1)));
        lines.for_each(|(to, from)| to.copy_from_slice(&from[first..first + width]));
        first += width;
        part
    })
}

/// The matrix with these columns: what [`split`] takes apart.
pub(super) fn join<const N: usize>(parts: [&[f32]; N], widths: [usize; N], memory: &Memory) -> Buffer {
    let whole: usize = widths.iter().sum();
    let mut all = memory.any(parts.iter().map(|part| part.len()).sum());
    let mut first = 0;
    for (part, width) in parts.into_iter().zip(widths) {
        let lines = all.chunks_exact_mut(whole.max(1)).zip(part.chunks_exact(width.max(1)));
        lines.for_each(|(to, from)| to[first..first + width].copy_from_slice(from));
        first += width;
    }
    all
}
