//! Training's two ends: from logits to the logprob of a token each and back, and the backward pass
//! to an embedding's rows. Knows nothing of losses.

use cubecl::prelude::*;

use super::{SAMPLERS, UNITS, largest, place_in, total};

/// The results for each row of logits: its token's logprob, log Σ p² over the vocabulary, and the
/// logarithm of the sum of the logits' exponentials.
pub(in crate::compute::gpu) const FOUND: usize = 3;

/// The logprobs of a token each. A cube a row.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - targets: `[rows]`
/// - found: `[rows, FOUND]`
#[cube(launch)]
pub(in crate::compute::gpu) fn logprobs(logits: &Tensor<f32>, targets: &Tensor<i32>, found: &mut Tensor<f32>, columns: usize) {
    let row = CUBE_POS_X as usize;
    let start = row * columns;
    let mut shared = Shared::<[f32]>::new_slice(SAMPLERS);
    let mut best = f32::new(-3.0e38);
    let mut at = UNIT_POS as usize;
    while at < columns {
        best = max(best, logits[start + at]);
        at += comptime!(SAMPLERS);
    }
    let best = largest(best, &mut shared);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let share = (logits[start + at] - best).exp();
        sum += share;
        squares += share * share;
        at += comptime!(SAMPLERS);
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

/// The backward pass of [`logprobs`] to the logits: derivative · (one-hot − probabilities), in the
/// layout of products. A unit a logit; rows past the logits' are 0.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - targets, derivatives: `[rows]`
/// - found: `[rows, FOUND]`
/// - out: `[rows or more, columns]`
#[cube(launch)]
pub(in crate::compute::gpu) fn logprobs_back<E: Float>(
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
    let row = CUBE_POS_X as usize;
    let column = CUBE_POS_Y as usize * comptime!(UNITS) + UNIT_POS as usize;
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

/// Strings equal numbers together: where each one's next is, or as many as there are where there is
/// none, and behind these whether it is a first one. A cube a number.
///
/// # Shapes
/// - numbers: `[rows]`
/// - links: `[2, rows]`
#[cube(launch)]
pub(in crate::compute::gpu) fn link_rows(numbers: &Tensor<i32>, links: &mut Tensor<i32>, rows: usize) {
    let row = CUBE_POS_X as usize;
    let number = numbers[row];
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    // Places are exact in f32. The nearest is the largest when they are counted down.
    let mut nearest = 0.0f32;
    let mut earlier = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < rows {
        if numbers[at] == number {
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

/// The backward pass to a table after a selection of these rows: each row gets the sum over its
/// uses, in their order. A cube a number.
///
/// # Shapes
/// - numbers: `[rows]`
/// - links: `[2, rows]`, see [`link_rows`]
/// - by_out: `[rows, width]`
/// - by_table: `[any, width]`, zeros at first
#[cube(launch)]
pub(in crate::compute::gpu) fn select_back(
    numbers: &Tensor<i32>,
    links: &Tensor<i32>,
    by_out: &Tensor<f32>,
    by_table: &mut Tensor<f32>,
    rows: usize,
    width: usize,
) {
    let row = CUBE_POS_X as usize;
    if links[rows + row] == 1 {
        let to = u32::cast_from(numbers[row]) as usize * width;
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
