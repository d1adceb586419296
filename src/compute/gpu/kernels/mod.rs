//! Kernels of a decoder in cubecl.
//!
//! A row is one position of one sequence. Numbers between the products are f32; what a product
//! reads, and keys and values, are of the element type that the weights are stored in. Sums have
//! one order, whatever else is computed beside them. Cubes count rows along x, of which a GPU has
//! the most. Knows nothing of weights, models or clients.

mod attention;
#[cfg(feature = "cuda")]
mod attention_back;
#[cfg(feature = "cuda")]
mod backward;
mod product;
mod sampling;
#[cfg(feature = "cuda")]
mod tokens;

use cubecl::prelude::*;

pub(super) use attention::{Attention, HeadParts, attend, place_heads};
#[cfg(feature = "cuda")]
pub(super) use attention_back::{attend_back_to_keys, attend_back_to_queries};
#[cfg(feature = "cuda")]
pub(super) use backward::{COLUMNS, ROWS_AT_ONCE, norm_back, norm_weight_back, swiglu_back};
#[cfg(feature = "cuda")]
pub(super) use product::put_columns;
pub(super) use product::{Cut, PLANES, TILE, product_of_tiles};
pub(super) use sampling::{Choice, SAMPLED, SAMPLERS, change_logits, sample};
#[cfg(feature = "cuda")]
pub(super) use tokens::{FOUND, link_rows, logprobs, logprobs_back, select_back};

/// How many units (threads) a cube of one row has.
pub(super) const UNITS: usize = 256;

/// What a row's place is made of, in this order: its token, its position in the sequence, where the
/// keys of its prefix begin, how many these are, and where those of its own sequence begin.
pub(super) const PLACE: usize = 5;

/// The sum over all units of a cube, known to all. `shared` has a number a unit, and is free
/// afterwards.
#[cube]
fn total(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let of_plane = plane_sum(value);
    if UNIT_POS_PLANE == 0 {
        shared[PLANE_POS as usize] = of_plane;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for plane in 0..(CUBE_DIM / PLANE_DIM) as usize {
        sum += shared[plane];
    }
    sync_cube();
    sum
}

/// The largest over all units of a cube, known to all, as [`total`].
#[cube]
fn largest(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let of_plane = plane_max(value);
    if UNIT_POS_PLANE == 0 {
        shared[PLANE_POS as usize] = of_plane;
    }
    sync_cube();
    let mut found = shared[0];
    for plane in 1..(CUBE_DIM / PLANE_DIM) as usize {
        found = max(found, shared[plane]);
    }
    sync_cube();
    found
}

/// Where a number stands in a matrix of so wide rows that products read, which is in tiles of
/// [`TILE`] by [`TILE`] where they are of tiles.
#[cube]
fn place_in(row: usize, column: usize, width: usize, #[comptime] in_tiles: bool) -> usize {
    let mut place = row * width + column;
    if comptime!(in_tiles) {
        let tile = row / comptime!(TILE) * (width / comptime!(TILE)) + column / comptime!(TILE);
        place = tile * comptime!(TILE * TILE) + row % comptime!(TILE) * comptime!(TILE) + column % comptime!(TILE);
    }
    place
}

/// Looks the embeddings of the rows' tokens up. A cube a row.
///
/// # Shapes
/// - table: `[vocabulary, width]`, or the tiles of that as in [`product_of_tiles`]
/// - places: `[rows, PLACE]`
/// - x: `[rows, width]`
#[cube(launch)]
pub(super) fn embed<E: Float>(
    table: &Tensor<E>,
    places: &Tensor<i32>,
    x: &mut Tensor<f32>,
    width: usize,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_X as usize;
    let token = u32::cast_from(places[row * comptime!(PLACE)]) as usize;
    let mut at = UNIT_POS as usize;
    while at < width {
        x[row * width + at] = f32::cast_from(table[place_in(token, at, width, in_tiles)]);
        at += comptime!(UNITS);
    }
}

/// The rows to norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Normed {
    /// All.
    Rows,
    /// All, after `change` was added to them.
    Changed,
    /// The rows in `sources`.
    Named,
}

/// Norms rows, for a product of tiles or of rows. A cube a row.
///
/// # Shapes
/// - x: `[any, width]`
/// - change: as x
/// - sources: `[rows]`
/// - weight: `[width]`
/// - out: `[rows, width]`
#[cube(launch)]
pub(super) fn norm<E: Float>(
    x: &mut Tensor<f32>,
    change: &Tensor<f32>,
    sources: &Tensor<i32>,
    weight: &Tensor<f32>,
    out: &mut Tensor<E>,
    width: usize,
    epsilon: f32,
    #[comptime] which: Normed,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_X as usize;
    let mut start = row * width;
    if comptime!(which == Normed::Named) {
        start = u32::cast_from(sources[row]) as usize * width;
    }
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut squares = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        let mut value = x[start + at];
        if comptime!(which == Normed::Changed) {
            value += change[start + at];
            x[start + at] = value;
        }
        squares += value * value;
        at += comptime!(UNITS);
    }
    let mean = total(squares, &mut shared) / f32::cast_from(width as u32);
    let scale = 1.0f32 / (mean + epsilon).sqrt();
    let mut at = UNIT_POS as usize;
    while at < width {
        out[place_in(row, at, width, in_tiles)] = E::cast_from(x[start + at] * scale * weight[at]);
        at += comptime!(UNITS);
    }
}

/// Keeps the stream behind each sequence's last row: `kept[sequence] = x[row] + change[row]`. A
/// cube a sequence.
///
/// # Shapes
/// - x, change: `[rows, width]`
/// - lasts: pairs of a row and a sequence
/// - kept: `[sequences, width]`
#[cube(launch)]
pub(super) fn keep(x: &Tensor<f32>, change: &Tensor<f32>, lasts: &Tensor<i32>, kept: &mut Tensor<f32>, width: usize) {
    let pair = CUBE_POS_X as usize * 2;
    let row = u32::cast_from(lasts[pair]) as usize;
    let sequence = u32::cast_from(lasts[pair + 1]) as usize;
    let mut at = UNIT_POS as usize;
    while at < width {
        kept[sequence * width + at] = x[row * width + at] + change[row * width + at];
        at += comptime!(UNITS);
    }
}

/// `silu(gate) · up`, after their biases if there are any.
///
/// # Shapes
/// - gate_up: `[rows, 2 · width]`
/// - bias: `[2 · width]`
/// - out: `[rows, width]`
#[cube(launch)]
pub(super) fn swiglu<E: Float>(
    gate_up: &Tensor<f32>,
    bias: &Tensor<f32>,
    out: &mut Tensor<E>,
    width: usize,
    #[comptime] has_bias: bool,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_X as usize;
    let column = CUBE_POS_Y as usize * comptime!(UNITS) + UNIT_POS as usize;
    if column < width {
        let mut gate = gate_up[row * 2 * width + column];
        let mut up = gate_up[row * 2 * width + width + column];
        if comptime!(has_bias) {
            gate += bias[column];
            up += bias[width + column];
        }
        out[place_in(row, column, width, in_tiles)] = E::cast_from(gate / (1.0f32 + (-gate).exp()) * up);
    }
}

/// `x += bias`, for each row.
///
/// # Shapes
/// - x: `[rows, width]`
/// - bias: `[width]`
#[cube(launch)]
pub(super) fn add_bias(x: &mut Tensor<f32>, bias: &Tensor<f32>, width: usize) {
    let row = CUBE_POS_X as usize;
    let column = CUBE_POS_Y as usize * comptime!(UNITS) + UNIT_POS as usize;
    if column < width {
        x[row * width + column] += bias[column];
    }
}
