//! The way back through attention, for sequences that begin alike. Knows nothing of projections, norms or batches.
//!
//! Weights are computed again from each query's normalizer, in blocks of queries and keys, so that nothing of the size of all pairs of positions is
//! held (Dao et al. 2022, arXiv 2205.14135). A number's sum runs over blocks in the order of positions.

use pulp::{Simd, WithSimd};

use super::arch;
use super::elementwise::{dot, exp};
use super::matrix::{Left, multiply};
use super::packed::Packed;

/// Positions in a block of queries, and in one of keys.
const POSITIONS: usize = 64;

/// What one key-value head and the queries that share it have been through, in some sequences.
///
/// Rows are positions: first those of the stem, then those of one branch after another. A branch sees the stem and itself.
#[derive(Clone, Copy, Debug)]
pub struct Attended<'a> {
    /// How many positions the stem and each branch have.
    pub lengths: &'a [usize],
    /// Width of a head.
    pub head_dim: usize,
    /// How far a position sees.
    pub window: usize,
    /// `[rows, queries, head_dim]`, already divided by √head_dim.
    pub queries: &'a [f32],
    /// `[rows, head_dim]`.
    pub keys: &'a [f32],
    /// `[rows, head_dim]`.
    pub values: &'a [f32],
    /// What was found: `[rows, queries, head_dim]`.
    pub out: &'a [f32],
    /// `[rows, queries]`, see [`super::attend_and_normalize`].
    pub normalizers: &'a [f32],
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

/// Keys and values of a block, laid out for each product.
struct KeyBlock {
    block: Block,
    keys: Packed,
    turned_keys: Packed,
    turned_values: Packed,
}

/// The gradients, given the derivatives by `out`, `[rows, queries, head_dim]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn attend_backward(attended: Attended<'_>, by_out: &[f32]) -> AttentionGradients {
    let Attended { lengths, head_dim, window, queries, keys, values, out, normalizers } = attended;
    let mut gradients =
        AttentionGradients { queries: vec![0.0; queries.len()], keys: vec![0.0; keys.len()], values: vec![0.0; values.len()] };
    let group = queries.len().checked_div(keys.len()).unwrap_or(0);
    let mut spans: Vec<Vec<KeyBlock>> = Vec::with_capacity(lengths.len());
    let mut first = 0;
    for (span, &length) in lengths.iter().enumerate() {
        // A branch's positions go on where the stem's end.
        let start = if span == 0 { 0 } else { lengths[0] };
        let blocks = (0..length).step_by(POSITIONS).map(|past| {
            let block = Block { row: first + past, rows: POSITIONS.min(length - past), position: start + past };
            let range = block.row * head_dim..(block.row + block.rows) * head_dim;
            KeyBlock {
                keys: Packed::of_rows(block.rows, &[(&keys[range.clone()], head_dim)]),
                turned_keys: Packed::of_columns(head_dim, block.rows, &keys[range.clone()]),
                turned_values: Packed::of_columns(head_dim, block.rows, &values[range]),
                block,
            }
        });
        spans.push(blocks.collect());
        first += length;
    }
    let arch = arch();
    let (mut weights, mut by_scores, mut deltas) = (Vec::new(), Vec::new(), Vec::new());
    for (span, blocks) in spans.iter().enumerate() {
        let before = if span == 0 { &[][..] } else { &spans[0] };
        for Block { row, rows, position } in blocks.iter().map(|key_block| &key_block.block) {
            let rows_of_queries = row * group..(row + rows) * group;
            let range = rows_of_queries.start * head_dim..rows_of_queries.end * head_dim;
            let (queries, by_out) = (&queries[range.clone()], &by_out[range.clone()]);
            arch.dispatch(Deltas(by_out, &out[range.clone()], head_dim, &mut deltas));
            let packed_queries = Packed::of_rows(rows * group, &[(queries, head_dim)]);
            let packed_by_out = Packed::of_rows(rows * group, &[(by_out, head_dim)]);
            let seen = |key_block: &&KeyBlock| {
                let Block { position: first, rows: keys, .. } = key_block.block;
                first < position + rows && position.saturating_sub(first + keys - 1) < window
            };
            for key_block in before.iter().chain(blocks).filter(seen) {
                let KeyBlock { block, keys, turned_keys, turned_values } = key_block;
                weights.resize(rows * group * block.rows, 0.0);
                by_scores.resize(rows * group * block.rows, 0.0);
                multiply(Left::Rows(queries), turned_keys, &mut weights, false, 1);
                multiply(Left::Rows(by_out), turned_values, &mut by_scores, false, 1);
                arch.dispatch(Scores {
                    weights: &mut weights,
                    by_scores: &mut by_scores,
                    normalizers: &normalizers[rows_of_queries.clone()],
                    deltas: &deltas,
                    group,
                    position: *position,
                    first_key: block.position,
                    keys: block.rows,
                    window,
                });
                multiply(Left::Rows(&by_scores), keys, &mut gradients.queries[range.clone()], true, 1);
                let keys_range = block.row * head_dim..(block.row + block.rows) * head_dim;
                multiply(Left::Columns(&by_scores), &packed_queries, &mut gradients.keys[keys_range.clone()], true, 1);
                multiply(Left::Columns(&weights), &packed_by_out, &mut gradients.values[keys_range], true, 1);
            }
        }
    }
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
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { weights, by_scores, normalizers, deltas, group, position, first_key, keys, window } = self;
        let rows = weights.chunks_exact_mut(keys).zip(by_scores.chunks_exact_mut(keys));
        for ((row, (weights, by_scores)), (normalizer, delta)) in rows.enumerate().zip(normalizers.iter().zip(deltas)) {
            let after = position + row / group + 1;
            let end = after.saturating_sub(first_key).min(keys);
            let start = after.saturating_sub(window).saturating_sub(first_key).min(end);
            for (weight, by_score) in weights[start..end].iter_mut().zip(&mut by_scores[start..end]) {
                *weight = exp(*weight - normalizer);
                *by_score = *weight * (*by_score - delta);
            }
            for hidden in [0..start, end..keys] {
                weights[hidden.clone()].fill(0.0);
                by_scores[hidden].fill(0.0);
            }
        }
    }
}
