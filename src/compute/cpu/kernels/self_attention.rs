//! Attention of whole sequences that begin alike, and its backward pass. Knows nothing of
//! projections, norms or batches.
//!
//! Queries and keys go in blocks, as products of matrices. The forward pass holds the scores of one
//! block of queries; the backward pass has weights again from each query's normalizer, so that
//! nothing of the size of all pairs of positions is held (Dao et al. 2022, arXiv 2205.14135). A
//! number's sum runs over positions in their order, so that it does not depend on where blocks end.

use pulp::{Simd, WithSimd};

use super::arch;
use super::elementwise::{dot, exp, softmax, tanh};
use super::left::Left;
use super::matrix::{Right, multiply};
use super::packed::Packed;

/// Positions in a block of queries, and in one of keys.
const POSITIONS: usize = 64;

/// What one key-value head, and the query heads that share it, get in some sequences.
///
/// Rows are positions: first those of the stem, then those of one branch after another. A branch
/// sees the stem and itself.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention<'a> {
    /// How many positions the stem and each branch have.
    pub lengths: &'a [usize],
    /// Width of a head.
    pub head_dim: usize,
    /// How far a position sees.
    pub window: usize,
    /// Scores become `cap · tanh(score / cap)`.
    pub cap: Option<f32>,
    /// `[rows, queries, head_dim]`, already divided by √head_dim.
    pub queries: &'a [f32],
    /// `[rows, head_dim]`.
    pub keys: &'a [f32],
    /// `[rows, head_dim]`.
    pub values: &'a [f32],
}

/// What each query found.
#[derive(Clone, Copy, Debug)]
pub struct Found<T> {
    /// The mean of the values, weighted by the softmax of query times key: `[rows, queries,
    /// head_dim]`.
    pub out: T,
    /// The logarithm of the sum of e^score: `[rows, queries]`.
    pub normalizers: T,
}

/// The derivatives by what went into attention, in the same shapes.
#[derive(Clone, Debug)]
pub struct AttentionGradients {
    /// `[rows, queries, head_dim]`.
    pub queries: Vec<f32>,
    /// `[rows, head_dim]`.
    pub keys: Vec<f32>,
    /// `[rows, head_dim]`.
    pub values: Vec<f32>,
}

/// Some positions of one sequence.
struct Block {
    /// The first row.
    row: usize,
    rows: usize,
    /// The position of the first row, counted from the start of the stem.
    position: usize,
}

/// The keys and values of a block, as a product needs them.
struct KeyBlock<P> {
    block: Block,
    packed: P,
}

/// For the forward pass: keys transposed, `[head_dim, rows]`, and values, `[rows, head_dim]`.
struct Forward {
    transposed_keys: Packed,
    values: Packed,
}

/// For the backward pass: keys, `[rows, head_dim]`, and both transposed, `[head_dim, rows]`.
struct Backward {
    keys: Packed,
    transposed_keys: Packed,
    transposed_values: Packed,
}

impl SelfAttention<'_> {
    /// Query heads that share the key-value head.
    fn group(&self) -> usize {
        self.queries.len().checked_div(self.keys.len()).unwrap_or(0)
    }

    /// The blocks of the stem and of each branch, keys and values packed by `pack`, which is given
    /// a block's.
    fn blocks<P>(&self, pack: impl Fn(usize, &[f32], &[f32]) -> P) -> Vec<Vec<KeyBlock<P>>> {
        let mut first = 0;
        let of_span = |(span, &length): (usize, &usize)| {
            // A branch's positions go on where the stem's end.
            let start = if span == 0 { 0 } else { self.lengths[0] };
            let blocks = (0..length).step_by(POSITIONS).map(|past| {
                let block = Block { row: first + past, rows: POSITIONS.min(length - past), position: start + past };
                let range = block.row * self.head_dim..(block.row + block.rows) * self.head_dim;
                KeyBlock { packed: pack(block.rows, &self.keys[range.clone()], &self.values[range]), block }
            });
            let blocks = blocks.collect();
            first += length;
            blocks
        };
        self.lengths.iter().enumerate().map(of_span).collect()
    }

    /// Calls `work` with each block of queries and the blocks of keys that it sees, in the order of
    /// their positions.
    fn each_block<P>(&self, spans: &[Vec<KeyBlock<P>>], mut work: impl FnMut(&Block, &[&KeyBlock<P>])) {
        for (span, blocks) in spans.iter().enumerate() {
            let before = if span == 0 { &[][..] } else { &spans[0] };
            for Block { row, rows, position } in blocks.iter().map(|key_block| &key_block.block) {
                let is_seen = |key_block: &&KeyBlock<P>| {
                    let Block { position: first, rows: keys, .. } = key_block.block;
                    first < position + rows && position.saturating_sub(first + keys - 1) < self.window
                };
                let seen: Vec<&KeyBlock<P>> = before.iter().chain(blocks).filter(is_seen).collect();
                work(&Block { row: *row, rows: *rows, position: *position }, &seen);
            }
        }
    }
}

/// What the queries find.
///
/// # Panics
/// When the shapes do not fit.
pub fn self_attention(attention: SelfAttention<'_>) -> Found<Vec<f32>> {
    let SelfAttention { head_dim, window, cap, queries, .. } = attention;
    let group = attention.group();
    let spans = attention.blocks(|rows, keys, values| Forward {
        transposed_keys: Packed::of_columns(head_dim, rows, keys),
        values: Packed::of_rows(rows, &[(values, head_dim)]),
    });
    let mut found = Found { out: vec![0.0; queries.len()], normalizers: vec![0.0; queries.len() / head_dim.max(1)] };
    let arch = arch();
    let (mut scores, mut of_block, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    attention.each_block(&spans, |&Block { row, rows, position }, seen| {
        let of_rows = row * group..(row + rows) * group;
        let range = of_rows.start * head_dim..of_rows.end * head_dim;
        let width: usize = seen.iter().map(|key_block| key_block.block.rows).sum();
        scores.resize(of_rows.len() * width, 0.0);
        let mut start = 0;
        for KeyBlock { block, packed } in seen {
            of_block.resize(of_rows.len() * block.rows, 0.0);
            multiply(Left::Rows(&queries[range.clone()]), [(Right::Packed(&packed.transposed_keys), &mut of_block[..])], false, 1);
            let pieces = scores.chunks_exact_mut(width).zip(of_block.chunks_exact(block.rows));
            pieces.for_each(|(to, from)| to[start..start + block.rows].copy_from_slice(from));
            start += block.rows;
        }
        sums.resize(of_rows.len(), 0.0);
        // There is one: a position sees itself.
        let first_key = seen.first().map_or(0, |key_block| key_block.block.position);
        let normalizers = &mut found.normalizers[of_rows.clone()];
        arch.dispatch(Softmaxes { scores: &mut scores, width, normalizers, sums: &mut sums, group, position, first_key, window, cap });
        let out = &mut found.out[range];
        let mut start = 0;
        for KeyBlock { block, packed } in seen {
            of_block.resize(of_rows.len() * block.rows, 0.0);
            let pieces = scores.chunks_exact(width).zip(of_block.chunks_exact_mut(block.rows));
            pieces.for_each(|(from, to)| to.copy_from_slice(&from[start..start + block.rows]));
            multiply(Left::Rows(&of_block), [(Right::Packed(&packed.values), &mut *out)], true, 1);
            start += block.rows;
        }
        for (out, sum) in out.chunks_exact_mut(head_dim).zip(&sums) {
            let scale = sum.recip();
            out.iter_mut().for_each(|number| *number *= scale);
        }
    });
    found
}

/// Scores become weights that are not yet divided by their sum; what a query does not see becomes
/// 0.
struct Softmaxes<'a> {
    scores: &'a mut [f32],
    /// How many keys there are.
    width: usize,
    normalizers: &'a mut [f32],
    sums: &'a mut [f32],
    group: usize,
    /// Of the first query.
    position: usize,
    /// The position of the first key.
    first_key: usize,
    window: usize,
    cap: Option<f32>,
}

impl WithSimd for Softmaxes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { scores, width, normalizers, sums, group, position, first_key, window, cap } = self;
        let rows = scores.chunks_exact_mut(width).zip(normalizers.iter_mut().zip(sums)).enumerate();
        for (row, (scores, (normalizer, sum))) in rows {
            let (start, end) = visible(position + row / group, first_key, width, window);
            if let Some(cap) = cap {
                scores[start..end].iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
            }
            let (largest, found) = softmax(&mut scores[start..end]);
            (*normalizer, *sum) = (largest + found.ln(), found);
            scores[..start].fill(0.0);
            scores[end..].fill(0.0);
        }
    }
}

/// Which of `keys` keys from position `first_key` on a query at `position` sees.
#[inline(always)]
fn visible(position: usize, first_key: usize, keys: usize, window: usize) -> (usize, usize) {
    let after = position + 1;
    let end = after.saturating_sub(first_key).min(keys);
    (after.saturating_sub(window).saturating_sub(first_key).min(end), end)
}

/// The gradients, given what was found and the derivatives by it, `[rows, queries, head_dim]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn self_attention_backward(attention: SelfAttention<'_>, found: Found<&[f32]>, by_out: &[f32]) -> AttentionGradients {
    let SelfAttention { head_dim, window, cap, queries, keys, values, .. } = attention;
    let Found { out, normalizers } = found;
    let mut gradients =
        AttentionGradients { queries: vec![0.0; queries.len()], keys: vec![0.0; keys.len()], values: vec![0.0; values.len()] };
    let group = attention.group();
    let spans = attention.blocks(|rows, keys, values| Backward {
        keys: Packed::of_rows(rows, &[(keys, head_dim)]),
        transposed_keys: Packed::of_columns(head_dim, rows, keys),
        transposed_values: Packed::of_columns(head_dim, rows, values),
    });
    let arch = arch();
    let (mut weights, mut by_scores, mut deltas) = (Vec::new(), Vec::new(), Vec::new());
    attention.each_block(&spans, |&Block { row, rows, position }, seen| {
        let of_rows = row * group..(row + rows) * group;
        let range = of_rows.start * head_dim..of_rows.end * head_dim;
        let (queries, by_out) = (&queries[range.clone()], &by_out[range.clone()]);
        arch.dispatch(Deltas(by_out, &out[range.clone()], head_dim, &mut deltas));
        let packed_queries = Packed::of_rows(rows * group, &[(queries, head_dim)]);
        let packed_by_out = Packed::of_rows(rows * group, &[(by_out, head_dim)]);
        for KeyBlock { block, packed } in seen {
            weights.resize(rows * group * block.rows, 0.0);
            by_scores.resize(rows * group * block.rows, 0.0);
            multiply(Left::Rows(queries), [(Right::Packed(&packed.transposed_keys), &mut weights[..])], false, 1);
            multiply(Left::Rows(by_out), [(Right::Packed(&packed.transposed_values), &mut by_scores[..])], false, 1);
            arch.dispatch(Scores {
                weights: &mut weights,
                by_scores: &mut by_scores,
                normalizers: &normalizers[of_rows.clone()],
                deltas: &deltas,
                group,
                position,
                first_key: block.position,
                keys: block.rows,
                window,
                cap,
            });
            multiply(Left::Rows(&by_scores), [(Right::Packed(&packed.keys), &mut gradients.queries[range.clone()])], true, 1);
            let keys_range = block.row * head_dim..(block.row + block.rows) * head_dim;
            multiply(Left::Columns(&by_scores), [(Right::Packed(&packed_queries), &mut gradients.keys[keys_range.clone()])], true, 1);
            multiply(Left::Columns(&weights), [(Right::Packed(&packed_by_out), &mut gradients.values[keys_range])], true, 1);
        }
    });
    gradients
}

/// Each query's derivative times what it found.
struct Deltas<'a>(&'a [f32], &'a [f32], usize, &'a mut Vec<f32>);

impl WithSimd for Deltas<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self(by_out, out, head_dim, deltas) = self;
        deltas.clear();
        deltas.extend(by_out.chunks_exact(head_dim).zip(out.chunks_exact(head_dim)).map(|(by_out, out)| dot(by_out, out)));
    }
}

/// Scores become weights, and derivatives by weights derivatives by scores.
struct Scores<'a> {
    weights: &'a mut [f32],
    by_scores: &'a mut [f32],
    normalizers: &'a [f32],
    deltas: &'a [f32],
    group: usize,
    /// Of the first query.
    position: usize,
    /// The position of the first key.
    first_key: usize,
    keys: usize,
    window: usize,
    cap: Option<f32>,
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { weights, by_scores, normalizers, deltas, group, position, first_key, keys, window, cap } = self;
        let rows = weights.chunks_exact_mut(keys).zip(by_scores.chunks_exact_mut(keys));
        for ((row, (weights, by_scores)), (normalizer, delta)) in rows.enumerate().zip(normalizers.iter().zip(deltas)) {
            let (start, end) = visible(position + row / group, first_key, keys, window);
            let seen = weights[start..end].iter_mut().zip(&mut by_scores[start..end]);
            match cap {
                Some(cap) => seen.for_each(|(weight, by_score)| {
                    let tanh = tanh(*weight / cap);
                    *weight = exp(cap * tanh - normalizer);
                    *by_score = *weight * (*by_score - delta) * (1.0 - tanh * tanh);
                }),
                None => seen.for_each(|(weight, by_score)| {
                    *weight = exp(*weight - normalizer);
                    *by_score = *weight * (*by_score - delta);
                }),
            }
            for hidden in [0..start, end..keys] {
                weights[hidden.clone()].fill(0.0);
                by_scores[hidden].fill(0.0);
            }
        }
    }
}
