//! Attention of one position over those before it, read once from where they are kept. Knows nothing of projections, norms or batches.
//!
//! Keys lie in blocks of [`BLOCK`] positions, transposed, so that a vector holds one number of each of them and scores need no sums
//! across lanes; values lie position after position.

use pulp::{Simd, WithSimd};

use super::arch;
use super::elementwise::softmax;

/// Positions in a block of keys.
pub const BLOCK: usize = 16;

/// Keys and values of consecutive positions, of all key-value heads.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// `[blocks, heads, head_dim, BLOCK]`; what lies past `length` is never looked at.
    pub keys: &'a [f32],
    /// `[length or more, heads, head_dim]`.
    pub values: &'a [f32],
    /// How many positions there are.
    pub length: usize,
}

/// What the queries of one position that share key-value head `head` (of `heads`) find in the last `window` positions of all `segments`: the mean of
/// the values, weighted by the softmax of query times key.
///
/// # Shapes
/// - queries, out: `[queries, head_dim]`, the queries already divided by √head_dim
/// - scores: scratch
///
/// # Panics
/// When a segment is shorter than its length says.
pub fn attend(
    queries: &[f32],
    head_dim: usize,
    segments: &[Segment<'_>],
    [head, heads]: [usize; 2],
    window: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    arch().dispatch(Attend { queries, head_dim, segments, head, heads, window, scores, out });
}

struct Attend<'a> {
    queries: &'a [f32],
    head_dim: usize,
    segments: &'a [Segment<'a>],
    head: usize,
    heads: usize,
    window: usize,
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { queries, head_dim, segments, head, heads, window, scores, out } = self;
        let total: usize = segments.iter().map(|segment| segment.length).sum();
        let skipped = total.saturating_sub(window);
        let block_width = heads * head_dim * BLOCK;
        for (query, out) in queries.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
            scores.clear();
            for segment in segments {
                let end = scores.len() + segment.length;
                for block in segment.keys.chunks_exact(block_width).take(segment.length.div_ceil(BLOCK)) {
                    let keys = &block[head * head_dim * BLOCK..(head + 1) * head_dim * BLOCK];
                    scores.extend_from_slice(&block_scores(query, keys));
                }
                scores.truncate(end);
            }
            let scores = &mut scores[skipped..];
            let (_, sum) = softmax(scores);
            let scale = sum.recip();
            let width = heads * head_dim;
            let mut at = 0;
            while at < head_dim {
                let left = head_dim - at;
                let columns = head * head_dim + at;
                let out = &mut out[at..];
                at += match left {
                    64.. => mix::<64>(scores, skipped, segments, width, columns, scale, out),
                    48.. => mix::<48>(scores, skipped, segments, width, columns, scale, out),
                    32.. => mix::<32>(scores, skipped, segments, width, columns, scale, out),
                    16.. => mix::<16>(scores, skipped, segments, width, columns, scale, out),
                    8.. => mix::<8>(scores, skipped, segments, width, columns, scale, out),
                    4.. => mix::<4>(scores, skipped, segments, width, columns, scale, out),
                    _ => mix::<1>(scores, skipped, segments, width, columns, scale, out),
                };
            }
        }
    }
}

/// A query times each key of a block. Four sums take turns, so that an addition need not wait for the one before it.
#[inline(always)]
fn block_scores(query: &[f32], keys: &[f32]) -> [f32; BLOCK] {
    let mut sums = [[0.0_f32; BLOCK]; 4];
    let (fours, rest) = query.as_chunks::<4>();
    let (keys, _) = keys.as_chunks::<BLOCK>();
    let (key_fours, key_rest) = keys.as_chunks::<4>();
    for (four, keys) in fours.iter().zip(key_fours) {
        for turn in 0..4 {
            for position in 0..BLOCK {
                sums[turn][position] = four[turn].mul_add(keys[turn][position], sums[turn][position]);
            }
        }
    }
    for ((sums, number), keys) in sums.iter_mut().zip(rest).zip(key_rest) {
        for position in 0..BLOCK {
            sums[position] = number.mul_add(keys[position], sums[position]);
        }
    }
    std::array::from_fn(|position| (sums[0][position] + sums[1][position]) + (sums[2][position] + sums[3][position]))
}

/// The mean of `WIDTH` columns of the values from `columns` on, weighted by `weights`, those past the first `skipped` positions. Returns `WIDTH`.
#[inline(always)]
fn mix<const WIDTH: usize>(
    weights: &[f32],
    mut skipped: usize,
    segments: &[Segment<'_>],
    width: usize,
    columns: usize,
    scale: f32,
    out: &mut [f32],
) -> usize {
    let mut sums = [0.0_f32; WIDTH];
    let mut weights = weights;
    for segment in segments {
        let first = skipped.min(segment.length);
        skipped -= first;
        let (here, after) = weights.split_at(segment.length - first);
        for (weight, values) in here.iter().zip(segment.values[first * width..].chunks_exact(width)) {
            let values = &values[columns..columns + WIDTH];
            for column in 0..WIDTH {
                sums[column] = weight.mul_add(values[column], sums[column]);
            }
        }
        weights = after;
    }
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * scale);
    WIDTH
}
