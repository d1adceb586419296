//! Attention of one position over those before it, read once from where they are kept. Knows
//! nothing of projections, norms or batches.
//!
//! A vector holds one number of each key of a block, so scores need no sums across lanes.

use pulp::{Simd, WithSimd};

use super::arch;
use super::elementwise::{softmax, tanh};
use super::kept::{BLOCK, Kept, Segment};
use super::written_out::written_out;

/// Queries of a head that read its keys together.
const TOGETHER: usize = 4;

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
pub fn attend<T: Kept>(
    queries: &[f32],
    head_dim: usize,
    segments: &[Segment<'_, T>],
    [head, heads]: [usize; 2],
    view: View,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    arch().dispatch(Attend { queries, head_dim, segments, head, heads, view, scores, out });
}

struct Attend<'a, T> {
    queries: &'a [f32],
    head_dim: usize,
    segments: &'a [Segment<'a, T>],
    head: usize,
    heads: usize,
    view: View,
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl<T: Kept> WithSimd for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, head_dim, segments, head, heads, view: View { window, cap }, scores, out } = self;
        let total = length(segments);
        let skipped = total.saturating_sub(window);
        // What a head has of a position.
        let kept = head_dim.div_ceil(T::NUMBERS);
        let block_width = heads * kept * BLOCK;
        let values = Values { segments, skipped, width: heads * kept, first: head * kept };
        let keys = Keys { segments, block_width, first: head * kept * BLOCK, width: kept * BLOCK };
        let together = TOGETHER * head_dim;
        for (queries, out) in queries.chunks(together).zip(out.chunks_mut(together)) {
            let count = queries.len() / head_dim.max(1);
            let padded = keys.padded();
            if scores.len() < count * padded {
                scores.resize(count * padded, 0.0);
            }
            match count {
                1 => keys.score::<S, 1>(simd, queries, head_dim, scores),
                2 => keys.score::<S, 2>(simd, queries, head_dim, scores),
                3 => keys.score::<S, 3>(simd, queries, head_dim, scores),
                _ => keys.score::<S, TOGETHER>(simd, queries, head_dim, scores),
            }
            for query in 0..count {
                let out = &mut out[query * head_dim..][..head_dim];
                let scores = &mut scores[query * padded..][skipped..total];
                if let Some(cap) = cap {
                    scores.iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
                }
                let (_, sum) = softmax(scores);
                let scale = sum.recip();
                let mut at = 0;
                while at < kept {
                    at += match kept - at {
                        left if left >= 2 * S::F32_LANES => values.mix::<S, 2, true>(simd, scores, at, scale, out),
                        left if left >= S::F32_LANES => values.mix::<S, 1, true>(simd, scores, at, scale, out),
                        _ => values.mix::<S, 1, false>(simd, scores, at, scale, out),
                    };
                }
            }
        }
    }
}

/// Positions of all segments.
#[inline(always)]
fn length<T>(segments: &[Segment<'_, T>]) -> usize {
    let mut length = 0;
    for segment in segments {
        length += segment.length;
    }
    length
}

/// The keys of one head.
struct Keys<'a, T> {
    segments: &'a [Segment<'a, T>],
    /// Of a block of all heads, and of the head: where its keys begin, and how many there are.
    block_width: usize,
    first: usize,
    width: usize,
}

impl<T: Kept> Keys<'_, T> {
    /// Scores of a query: of all positions, and of what a last block has past its segment.
    fn padded(&self) -> usize {
        length(self.segments) + BLOCK
    }

    /// `QUERIES` queries times all keys. A block past the end of a segment is written over by the
    /// next one.
    ///
    /// # Shapes
    /// - queries: `[QUERIES, head_dim]`
    /// - scores: `[QUERIES, padded]`
    #[inline(always)]
    fn score<S: Simd, const QUERIES: usize>(&self, simd: S, queries: &[f32], head_dim: usize, scores: &mut [f32]) {
        let padded = self.padded();
        let queries: [&[f32]; QUERIES] = std::array::from_fn(|query| &queries[query * head_dim..][..head_dim]);
        let mut start = 0;
        for segment in self.segments {
            let blocks = segment.keys.chunks_exact(self.block_width).take(segment.length.div_ceil(BLOCK));
            for (block, keys) in blocks.enumerate() {
                let found = block_scores::<S, T, QUERIES>(simd, queries, &keys[self.first..][..self.width]);
                for (query, found) in found.iter().enumerate() {
                    scores[query * padded + start + block * BLOCK..][..BLOCK].copy_from_slice(found);
                }
            }
            start += segment.length;
        }
    }
}

/// Queries times each key of a block. Four sums take turns, so that an addition need not wait for
/// the one before it.
#[inline(always)]
fn block_scores<S: Simd, T: Kept, const QUERIES: usize>(simd: S, queries: [&[f32]; QUERIES], keys: &[T]) -> [[f32; BLOCK]; QUERIES] {
    let mut scores = [[0.0; BLOCK]; QUERIES];
    let count = queries[0].len() / 4;
    let (fours, last) = keys.split_at(count * 4 / T::NUMBERS * BLOCK);
    for vector in 0..BLOCK / S::F32_LANES {
        let mut sums = [[simd.splat_f32s(0.0); 4]; QUERIES];
        for (four, keys) in fours.chunks_exact(4 / T::NUMBERS * BLOCK).enumerate() {
            let mut numbers = queries;
            for query in 0..QUERIES {
                numbers[query] = &queries[query][4 * four..4 * four + 4];
            }
            add_scores(simd, &mut sums, numbers, keys, vector);
        }
        let mut rest = queries;
        for query in 0..QUERIES {
            rest[query] = &queries[query][4 * count..];
        }
        add_scores(simd, &mut sums, rest, last, vector);
        for query in 0..QUERIES {
            let sums = sums[query];
            let score = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
            S::as_mut_simd_f32s(&mut scores[query]).0[vector] = score;
        }
    }
    scores
}

/// Adds at most four numbers of each query times a vector of their keys, each to its own sum. A
/// function: a closure is compiled without the vector unit, and so is what it calls.
#[inline(always)]
fn add_scores<S: Simd, T: Kept, const QUERIES: usize>(
    simd: S,
    sums: &mut [[S::f32s; 4]; QUERIES],
    queries: [&[f32]; QUERIES],
    keys: &[T],
    vector: usize,
) {
    let keys: &[[T; BLOCK]] = keys.as_chunks().0;
    written_out!(turn in 0..4, at most 4 => {
        if turn < queries[0].len() {
            let key = T::vectors(simd, &keys[turn / T::NUMBERS][vector * S::F32_LANES..])[turn % T::NUMBERS];
            written_out!(query in 0..QUERIES, at most 4 => {
                sums[query][turn] = simd.mul_add_f32s(simd.splat_f32s(queries[query][turn]), key, sums[query][turn]);
            });
        }
    });
}

/// The values of one head that are seen.
struct Values<'a, T> {
    segments: &'a [Segment<'a, T>],
    /// Positions at the start that are not seen.
    skipped: usize,
    /// Of a position's values, all heads'.
    width: usize,
    /// The head's first.
    first: usize,
}

impl<T: Kept> Values<'_, T> {
    /// `scale` times the sum of the values times `weights`, in `VECTORS` vectors of what is kept,
    /// from `at` on; of one that is not `WHOLE`, of what the head has. Returns how many that is.
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
        let count = if WHOLE { VECTORS * S::F32_LANES } else { out.len().div_ceil(T::NUMBERS) - at };
        let mut sums = [[[simd.splat_f32s(0.0); 2]; VECTORS]; 4];
        let from = self.first + at;
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
                    1 => add_values::<S, T, VECTORS, WHOLE>(simd, &mut sums[1], *weight, &values[from..][..count]),
                    2 => add_values::<S, T, VECTORS, WHOLE>(simd, &mut sums[2], *weight, &values[from..][..count]),
                    _ => add_values::<S, T, VECTORS, WHOLE>(simd, &mut sums[3], *weight, &values[from..][..count]),
                }
            }
            let values = &values[before.len() * self.width..];
            let (fours, rest) = aligned.as_chunks::<4>();
            for (at, four) in fours.iter().enumerate() {
                let values = &values[at * 4 * self.width..][..4 * self.width];
                written_out!(turn in 0..4, at most 4 => {
                    let values = &values[turn * self.width + from..][..count];
                    add_values::<S, T, VECTORS, WHOLE>(simd, &mut sums[turn], four[turn], values);
                });
            }
            let values = &values[fours.len() * 4 * self.width..];
            written_out!(turn in 0..3, at most 4 => {
                if let Some(weight) = rest.get(turn) {
                    let values = &values[turn * self.width + from..][..count];
                    add_values::<S, T, VECTORS, WHOLE>(simd, &mut sums[turn], *weight, values);
                }
            });
            next = (next + here.len()) % 4;
            weights = after;
        }
        written_out!(vector in 0..VECTORS, at most 2 => {
            let mut means = [simd.splat_f32s(0.0); 2];
            written_out!(number in 0..T::NUMBERS, at most 2 => {
                let [first, second, third, fourth] = [sums[0][vector], sums[1][vector], sums[2][vector], sums[3][vector]];
                let halves = [simd.add_f32s(first[number], second[number]), simd.add_f32s(third[number], fourth[number])];
                means[number] = simd.mul_f32s(simd.add_f32s(halves[0], halves[1]), simd.splat_f32s(scale));
            });
            let out = &mut out[(at + vector * S::F32_LANES) * T::NUMBERS..];
            if T::NUMBERS == 2 {
                // Numbers beside each other come from two vectors.
                let mut numbers = [[0.0; BLOCK]; 2];
                for (mean, numbers) in means.iter().zip(&mut numbers) {
                    S::as_mut_simd_f32s(numbers).0[0] = *mean;
                }
                for (place, out) in out.iter_mut().take(2 * S::F32_LANES).enumerate() {
                    *out = numbers[place % 2][place / 2];
                }
            } else if WHOLE {
                S::as_mut_simd_f32s(out).0[0] = means[0];
            } else {
                simd.partial_store_f32s(out, means[0]);
            }
        });
        count
    }
}

/// Adds a position's values times its weight to a turn's sums.
#[inline(always)]
fn add_values<S: Simd, T: Kept, const VECTORS: usize, const WHOLE: bool>(
    simd: S,
    sums: &mut [[S::f32s; 2]; VECTORS],
    weight: f32,
    values: &[T],
) {
    let weight = simd.splat_f32s(weight);
    written_out!(vector in 0..VECTORS, at most 2 => {
        let values = if WHOLE { T::vectors(simd, &values[vector * S::F32_LANES..]) } else { T::part(simd, values) };
        written_out!(number in 0..T::NUMBERS, at most 2 => {
            sums[vector][number] = simd.mul_add_f32s(weight, values[number], sums[vector][number]);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::bf16::round;
    use super::super::kept::{Pair, keep};
    use super::*;

    /// Keys and values of `heads` heads, position after position, as a segment has them.
    fn kept<T: Kept>(numbers: &[f32], heads: usize, head_dim: usize) -> [Vec<T>; 2] {
        let rows: Vec<f32> = numbers.chunks_exact(heads * head_dim).flat_map(|position| [position, position].concat()).collect();
        let width = 2 * heads * head_dim;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        // Many positions, and then one after the other.
        let (many, ones) = rows.split_at(rows.len() / width / 2 * width);
        keep(many, width, [heads, head_dim], 0, &mut keys, &mut values);
        for (past, one) in ones.chunks_exact(width).enumerate() {
            keep(one, width, [heads, head_dim], many.len() / width + past, &mut keys, &mut values);
        }
        [keys, values]
    }

    fn found<T: Kept>(numbers: &[f32], queries: &[f32], heads: usize, head_dim: usize, split: usize) -> Vec<u32> {
        let (before, after) = numbers.split_at(split * heads * head_dim);
        let parts = [before, after].map(|numbers| (kept::<T>(numbers, heads, head_dim), numbers.len() / (heads * head_dim)));
        let segments = parts.each_ref().map(|([keys, values], length)| Segment { keys: &keys[..], values: &values[..], length: *length });
        let mut out = vec![0.0; queries.len()];
        let view = View { window: 50, cap: Some(3.0) };
        attend(queries, head_dim, &segments, [1, heads], view, &mut Vec::new(), &mut out);
        out.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn pairs_give_the_bits_of_their_numbers_in_f32() {
        let mut state = 1_u32;
        let mut numbers = |count: usize| -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            (0..count).map(next).collect()
        };
        let (heads, positions) = (2, 53);
        for head_dim in [1, 2, 7, 16, 24, 48, 64, 80, 128] {
            let (all, queries) = (numbers(positions * heads * head_dim), numbers(3 * head_dim));
            let rounded: Vec<f32> = all.iter().map(|number| round(*number)).collect();
            for split in [0, 16, 21, 53] {
                let expected = found::<f32>(&rounded, &queries, heads, head_dim, split);
                assert_eq!(found::<Pair>(&all, &queries, heads, head_dim, split), expected, "width {head_dim}, split at {split}");
            }
        }
    }

    #[test]
    fn queries_together_find_what_each_finds_alone() {
        let next = |at: usize| ((at * 7919 + 13) % 1009) as f32 / 500.0 - 1.0;
        let (heads, positions) = (2, 37);
        for head_dim in [2, 24, 64] {
            let numbers: Vec<f32> = (0..positions * heads * head_dim).map(next).collect();
            for count in 1..=9 {
                let queries: Vec<f32> = (0..count * head_dim).map(|at| next(at + 5)).collect();
                for split in [0, 21] {
                    let alone = queries.chunks_exact(head_dim);
                    let alone: Vec<u32> = alone.flat_map(|query| found::<f32>(&numbers, query, heads, head_dim, split)).collect();
                    assert_eq!(found::<f32>(&numbers, &queries, heads, head_dim, split), alone, "{count} queries of {head_dim}");
                }
            }
        }
    }
}
