//! Training's two ends: from logits to the logprob of a token each and back, and back to an embedding. Knows nothing of losses.

use cubecl::prelude::*;

use super::{DRAWERS, UNITS, largest, place_in, total};

/// What is found for each row of logits: its token's logprob, log Σ p² over the vocabulary, and the logarithm of the sum of the logits' exponentials.
pub(in crate::model::gpu) const FOUND: usize = 3;

/// The logprobs of a token each. A cube a row.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - targets: `[rows]`
/// - found: `[rows, FOUND]`
#[cube(launch)]
pub(in crate::model::gpu) fn logprobs(logits: &Tensor<f32>, targets: &Tensor<i32>, found: &mut Tensor<f32>, columns: usize) {
    let row = CUBE_POS_X as usize;
    let start = row * columns;
    let mut shared = Shared::<[f32]>::new_slice(DRAWERS);
    let mut best = f32::new(-3.0e38);
    let mut at = UNIT_POS as usize;
    while at < columns {
        best = max(best, logits[start + at]);
        at += comptime!(DRAWERS);
    }
    let best = largest(best, &mut shared);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let share = (logits[start + at] - best).exp();
        sum += share;
        squares += share * share;
        at += comptime!(DRAWERS);
    }
    let sum = total(sum, &mut shared).ln();
    let squares = total(squares, &mut shared).ln();
    if UNIT_POS == 0 {
        let to = row * comptime!(FOUND);
        found[to] = logits[start + u32::cast_from(targets[row]) as usize] - best - sum;
        found[to + 1] = squares - 2.0f32 * sum;
        found[to + 2] = best + sum;
    }
}

/// The way back through [`logprobs`] to the logits: derivative · (one-hot − probabilities), as products read it. A unit a logit; what is past the rows is 0.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - targets, derivatives: `[rows]`
/// - found: `[rows, FOUND]`
/// - out: `[rows or more, columns]`
#[cube(launch)]
pub(in crate::model::gpu) fn logprobs_back<E: Float>(
    logits: &Tensor<f32>,
    targets: &Tensor<i32>,
    found: &Tensor<f32>,
    derivatives: &Tensor<f32>,
    out: &mut Tensor<E>,
    rows: usize,
    columns: usize,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_Y as usize;
    let column = CUBE_POS_X as usize * comptime!(UNITS) + UNIT_POS as usize;
    if column < columns {
        let mut by = 0.0f32;
        if row < rows {
            by = -(logits[row * columns + column] - found[row * comptime!(FOUND) + 2]).exp();
            if u32::cast_from(targets[row]) as usize == column {
                by += 1.0f32;
            }
            by *= derivatives[row];
        }
        out[place_in(row, column, columns, in_tiles)] = E::cast_from(by);
    }
}

/// Strings the rows of equal tokens together: the number of each row's next one, or of rows where there is none, and behind these numbers whether it is a first one.
/// A cube a row.
///
/// # Shapes
/// - tokens: `[rows]`
/// - links: `[2, rows]`
#[cube(launch)]
pub(in crate::model::gpu) fn link_tokens(tokens: &Tensor<i32>, links: &mut Tensor<i32>, rows: usize) {
    let row = CUBE_POS_X as usize;
    let token = tokens[row];
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    // Numbers of rows are exact in f32. The nearest is the largest when they are counted down.
    let mut nearest = 0.0f32;
    let mut earlier = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < rows {
        if tokens[at] == token {
            if at < row {
                earlier = 1.0f32;
            }
            if at > row {
                nearest = max(nearest, f32::cast_from((rows - at) as u32));
            }
        }
        at += comptime!(UNITS);
    }
    let nearest = largest(nearest, &mut shared);
    let earlier = largest(earlier, &mut shared);
    if UNIT_POS == 0 {
        links[row] = i32::cast_from(rows as u32 - u32::cast_from(nearest));
        links[rows + row] = 1 - i32::cast_from(earlier);
    }
}

/// The way back to an embedding's rows, each the sum over the rows of its token, in their order. A cube a row.
///
/// # Shapes
/// - tokens: `[rows]`
/// - links: `[2, rows]`, see [`link_tokens`]
/// - by_out: `[rows, width]`
/// - by_table: `[vocabulary, width]`, zeros at first
#[cube(launch)]
pub(in crate::model::gpu) fn embed_back(
    tokens: &Tensor<i32>,
    links: &Tensor<i32>,
    by_out: &Tensor<f32>,
    by_table: &mut Tensor<f32>,
    rows: usize,
    width: usize,
) {
    let row = CUBE_POS_X as usize;
    if links[rows + row] == 1 {
        let to = u32::cast_from(tokens[row]) as usize * width;
        let mut at = UNIT_POS as usize;
        while at < width {
            let mut sum = 0.0f32;
            let mut there = row;
            while there < rows {
                sum += by_out[there * width + at];
                there = u32::cast_from(links[there]) as usize;
            }
            by_table[to + at] = sum;
            at += comptime!(UNITS);
        }
    }
}
