//! Attention of one position over those before it, read once from where they are kept. Knows
//! nothing of projections, norms or batches.
//!
//! Keys lie in blocks of [`BLOCK`] positions, transposed, so that a vector holds one number of each
//! of them and scores need no sums across lanes; values lie position after position.

use pulp::{Simd, WithSimd};

use super::arch;
use super::elementwise::{softmax, tanh};

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

/// What a query sees, and how large its scores may be.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// How far a position sees.
    pub window: usize,
    /// Scores become `cap · tanh(score / cap)`.
    pub cap: Option<f32>,
}

/// What the queries of one position that share key-value head `head` (of `heads`) find in the last
/// positions in `view` of all `segments`: the mean of the values, weighted by the softmax of query
/// times key.
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
    view: View,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    arch().dispatch(Attend { queries, head_dim, segments, head, heads, view, scores, out });
}

struct Attend<'a> {
    queries: &'a [f32],
    head_dim: usize,
    segments: &'a [Segment<'a>],
    head: usize,
    heads: usize,
    view: View,
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, head_dim, segments, head, heads, view: View { window, cap }, scores, out } = self;
        let total: usize = segments.iter().map(|segment| segment.length).sum();
        let skipped = total.saturating_sub(window);
        let block_width = heads * head_dim * BLOCK;
        for (query, out) in queries.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
            scores.clear();
            for segment in segments {
                let end = scores.len() + segment.length;
                for block in segment.keys.chunks_exact(block_width).take(segment.length.div_ceil(BLOCK)) {
                    let keys = &block[head * head_dim * BLOCK..(head + 1) * head_dim * BLOCK];
                    scores.extend_from_slice(&block_scores(simd, query, keys));
                }
                scores.truncate(end);
            }
            let scores = &mut scores[skipped..];
            if let Some(cap) = cap {
                scores.iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
            }
            let (_, sum) = softmax(scores);
            let scale = sum.recip();
            let values = Values { segments, skipped, width: heads * head_dim, first: head * head_dim };
            let mut at = 0;
            while at < head_dim {
                at += match head_dim - at {
                    left if left >= 2 * S::F32_LANES => values.mix::<S, 2, true>(simd, scores, at, scale, out),
                    left if left >= S::F32_LANES => values.mix::<S, 1, true>(simd, scores, at, scale, out),
                    _ => values.mix::<S, 1, false>(simd, scores, at, scale, out),
                };
            }
        }
    }
}

/// A query times each key of a block. Four sums take turns, so that an addition need not wait for
/// the one before it.
#[inline(always)]
fn block_scores<S: Simd>(simd: S, query: &[f32], keys: &[f32]) -> [f32; BLOCK] {
    let mut scores = [0.0; BLOCK];
    let (fours, rest) = query.as_chunks::<4>();
    let (keys, _) = keys.as_chunks::<BLOCK>();
    let (key_fours, key_rest) = keys.as_chunks::<4>();
    for (vector, scores) in S::as_mut_simd_f32s(&mut scores).0.iter_mut().enumerate() {
        let mut sums = [simd.splat_f32s(0.0); 4];
        let mut add = |turn: usize, number: f32, keys: &[f32; BLOCK]| {
            sums[turn] = simd.mul_add_f32s(simd.splat_f32s(number), S::as_simd_f32s(keys).0[vector], sums[turn]);
        };
        for (four, keys) in fours.iter().zip(key_fours) {
            for turn in 0..4 {
                add(turn, four[turn], &keys[turn]);
            }
        }
        for (turn, (number, keys)) in rest.iter().zip(key_rest).enumerate() {
            add(turn, *number, keys);
        }
        *scores = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
    }
    scores
}

/// The values of one head that are seen.
struct Values<'a> {
    segments: &'a [Segment<'a>],
    /// Positions at the start that are not seen.
    skipped: usize,
    /// Of a position's values, all heads'.
    width: usize,
    /// The head's first column.
    first: usize,
}

impl Values<'_> {
    /// `scale` times the sum of the values times `weights`, in `VECTORS` vectors of columns from
    /// `at` on; of one that is not `WHOLE`, in the columns that the head has. Returns how many
    /// columns that is.
    ///
    /// Four sums take turns here too, wherever segments begin.
    #[inline(always)]
    fn mix<S: Simd, const VECTORS: usize, const WHOLE: bool>(
        &self,
        simd: S,
        mut weights: &[f32],
        at: usize,
        scale: f32,
        out: &mut [f32],
    ) -> usize {
        let columns = if WHOLE { VECTORS * S::F32_LANES } else { out.len() - at };
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; 4];
        let mut add = |turn: usize, weight: f32, values: &[f32]| {
            let values = &values[self.first + at..][..columns];
            let weight = simd.splat_f32s(weight);
            for (vector, sum) in sums[turn].iter_mut().enumerate() {
                let values = if WHOLE { S::as_simd_f32s(values).0[vector] } else { simd.partial_load_f32s(values) };
                *sum = simd.mul_add_f32s(weight, values, *sum);
            }
        };
        let (mut skipped, mut next) = (self.skipped, 0);
        for segment in self.segments {
            let first = skipped.min(segment.length);
            skipped -= first;
            let (here, after) = weights.split_at(segment.length - first);
            let values = &segment.values[first * self.width..];
            // Until it is the first sum's turn; then four at a time; then what is left. Turns are
            // written out, so that the sums stay in registers.
            let (before, aligned) = here.split_at(here.len().min((4 - next) % 4));
            for (past, weight) in before.iter().enumerate() {
                let values = &values[past * self.width..];
                match next + past {
                    1 => add(1, *weight, values),
                    2 => add(2, *weight, values),
                    _ => add(3, *weight, values),
                }
            }
            let values = &values[before.len() * self.width..];
            let (fours, rest) = aligned.as_chunks::<4>();
            for (four, values) in fours.iter().zip(values.chunks_exact(4 * self.width)) {
                for turn in 0..4 {
                    add(turn, four[turn], &values[turn * self.width..]);
                }
            }
            let values = &values[fours.len() * 4 * self.width..];
            for turn in 0..3 {
                if let Some(weight) = rest.get(turn) {
                    add(turn, *weight, &values[turn * self.width..]);
                }
            }
            next = (next + here.len()) % 4;
            weights = after;
        }
        for vector in 0..VECTORS {
            let halves = [simd.add_f32s(sums[0][vector], sums[1][vector]), simd.add_f32s(sums[2][vector], sums[3][vector])];
            let mean = simd.mul_f32s(simd.add_f32s(halves[0], halves[1]), simd.splat_f32s(scale));
            let out = &mut out[at + vector * S::F32_LANES..];
            if WHOLE {
                S::as_mut_simd_f32s(out).0[0] = mean;
            } else {
                simd.partial_store_f32s(out, mean);
            }
        }
        columns
    }
}
