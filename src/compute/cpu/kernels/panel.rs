//! The width of panels, and rows turned into columns. Knows nothing of factors.

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// The first number of each row, the second of each, and so on, into what `numbers` finds in `to`.
/// Four by four, which is what vectors turn at once.
#[inline(always)]
pub(super) fn interleave<T, const ROWS: usize>(rows: [&[f32]; ROWS], to: &mut [T], numbers: impl Fn(&mut T) -> &mut [f32; ROWS]) {
    let (fours, rest) = to.as_chunks_mut::<4>();
    let first = fours.len() * 4;
    let quads = rows.map(|row| &row.as_chunks::<4>().0[..fours.len()]);
    for (at, to) in fours.iter_mut().enumerate() {
        for four in 0..ROWS / 4 {
            let transposed =
                transpose_four([quads[4 * four][at], quads[4 * four + 1][at], quads[4 * four + 2][at], quads[4 * four + 3][at]]);
            for column in 0..4 {
                numbers(&mut to[column])[4 * four..4 * four + 4].copy_from_slice(&transposed[column]);
            }
        }
        for (row, quads) in quads.iter().enumerate().skip(ROWS / 4 * 4) {
            to.iter_mut().zip(quads[at]).for_each(|(to, number)| numbers(to)[row] = number);
        }
    }
    for (at, to) in rest.iter_mut().enumerate() {
        numbers(to).iter_mut().zip(&rows).for_each(|(to, row)| *to = row[first + at]);
    }
}

/// The transpose of four rows of four.
#[inline(always)]
pub(super) fn transpose_four<T: Copy>([a, b, c, d]: [[T; 4]; 4]) -> [[T; 4]; 4] {
    // Pairs first: in this form it becomes eight instructions.
    let [low_ab, high_ab] = [[a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]]];
    let [low_cd, high_cd] = [[c[0], d[0], c[1], d[1]], [c[2], d[2], c[3], d[3]]];
    [
        [low_ab[0], low_ab[1], low_cd[0], low_cd[1]],
        [low_ab[2], low_ab[3], low_cd[2], low_cd[3]],
        [high_ab[0], high_ab[1], high_cd[0], high_cd[1]],
        [high_ab[2], high_ab[3], high_cd[2], high_cd[3]],
    ]
}
