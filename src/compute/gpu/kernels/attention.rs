//! Attention, from the projection to queries, keys and values on. Knows nothing of weights.

use cubecl::prelude::*;

use super::{PLACE, UNITS, place_in};

/// The optional parts of a projection to queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::compute::gpu) struct HeadParts {
    pub(in crate::compute::gpu) bias: bool,
    pub(in crate::compute::gpu) norms: bool,
    pub(in crate::compute::gpu) rotary: bool,
}

/// Adds biases to queries, keys and values, norms and turns the first two, and puts keys and values
/// where their sequence keeps them. A cube a row and head, of half as many units as a head has
/// numbers.
///
/// # Shapes
/// - qkv: `[rows, (heads + 2 · key_value_heads) · head_dim]`
/// - bias: as many as a row of `qkv` has
/// - norms: `[2, head_dim]`, for queries and keys
/// - angles: `[head_dim / 2]`, a position
/// - places: `[rows, PLACE]`
/// - queries: `[rows, heads · head_dim]`
/// - keys, values: `[positions, key_value_heads · head_dim]`
#[cube(launch)]
pub(in crate::compute::gpu) fn place_heads<E: Float>(
    qkv: &Tensor<f32>,
    bias: &Tensor<f32>,
    norms: &Tensor<f32>,
    angles: &Tensor<f32>,
    places: &Tensor<i32>,
    queries: &mut Tensor<f32>,
    keys: &mut Tensor<E>,
    values: &mut Tensor<E>,
    heads: usize,
    key_value_heads: usize,
    epsilon: f32,
    #[comptime] head_dim: usize,
    #[comptime] parts: HeadParts,
    #[define(E)] _element: ElemType,
) {
    let head = CUBE_POS_Y as usize;
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    let half = comptime!(head_dim / 2);
    let width = (heads + 2 * key_value_heads) * head_dim;
    let start = row * width + head * head_dim;
    let mut first = qkv[start + unit];
    let mut second = qkv[start + half + unit];
    if comptime!(parts.bias) {
        first += bias[head * head_dim + unit];
        second += bias[head * head_dim + half + unit];
    }
    if comptime!(parts.norms) {
        let mut shared = Shared::<[f32]>::new_slice(half);
        shared[unit] = first * first + second * second;
        sync_cube();
        let mut squares = 0.0f32;
        for other in 0..half {
            squares += shared[other];
        }
        if head < heads + key_value_heads {
            let scale = 1.0f32 / (squares / comptime!(head_dim as f32) + epsilon).sqrt();
            let mut of_head = 0usize.runtime();
            if head >= heads {
                of_head = head_dim.runtime();
            }
            first *= scale * norms[of_head + unit];
            second *= scale * norms[of_head + half + unit];
        }
    }
    let place = row * comptime!(PLACE);
    let position = places[place + 1];
    if comptime!(parts.rotary) {
        let is_rotated = head < heads + key_value_heads;
        if is_rotated {
            let angle = f32::cast_from(position) * angles[unit];
            let cosine = angle.cos();
            let sine = angle.sin();
            let rotated = first * cosine - second * sine;
            second = second * cosine + first * sine;
            first = rotated;
        }
    }
    if head < heads {
        let out = row * heads * head_dim + head * head_dim;
        queries[out + unit] = first;
        queries[out + half + unit] = second;
    } else {
        let prefix = places[place + 3];
        let at = u32::cast_from(places[place + 4] + position - prefix) as usize;
        if head < heads + key_value_heads {
            let out = (at * key_value_heads + head - heads) * head_dim;
            keys[out + unit] = E::cast_from(first);
            keys[out + half + unit] = E::cast_from(second);
        } else {
            let out = (at * key_value_heads + head - heads - key_value_heads) * head_dim;
            values[out + unit] = E::cast_from(first);
            values[out + half + unit] = E::cast_from(second);
        }
    }
}

/// Where a position's keys and values are.
#[cube]
fn position_at(position: usize, prefix_start: usize, prefix: usize, own_start: usize) -> usize {
    let mut at = prefix_start + position;
    if position >= prefix {
        at = own_start + position - prefix;
    }
    at
}

/// How the planes of a cube share attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::compute::gpu) struct Attention {
    pub(in crate::compute::gpu) heads: usize,
    pub(in crate::compute::gpu) key_value_heads: usize,
    pub(in crate::compute::gpu) head_dim: usize,
    /// Query heads of one cube, with the same keys.
    pub(in crate::compute::gpu) together: usize,
    /// Units of a plane.
    pub(in crate::compute::gpu) plane: usize,
    /// Numbers read by a unit at once.
    pub(in crate::compute::gpu) vector: usize,
    pub(in crate::compute::gpu) in_tiles: bool,
    /// Whether normalizers are kept.
    pub(in crate::compute::gpu) keeps: bool,
}

impl Attention {
    /// How often the units of a plane read a vector each, for all of a key.
    pub(super) fn pieces(self) -> usize {
        self.head_dim.div_ceil(self.plane * self.vector)
    }

    /// How many numbers of a key a unit has at most.
    fn numbers(self) -> usize {
        self.pieces() * self.vector
    }

    pub(super) fn planes(self) -> usize {
        UNITS / self.plane
    }

    /// How many query heads share a key head.
    pub(super) fn group(self) -> usize {
        self.heads / self.key_value_heads
    }
}

/// How many keys a plane reads at once, to wait for them once.
const KEYS: usize = 4;

/// Attention of each row to what its sequence holds up to it, in one pass with a running softmax
/// (Milakov and Gimelshein 2018, arXiv 1805.02867). A cube a row and a few query heads with the
/// same keys. Its planes take turns with the keys; each unit has its numbers of queries, keys,
/// values and sums. In the end the planes' sums are put together, in their order.
///
/// # Shapes
/// - queries: `[rows, heads · head_dim]`
/// - keys, values: `[positions, key_value_heads · head_dim]` in vectors
/// - places: `[rows, PLACE]`
/// - out: `[rows, heads · head_dim]`
/// - normalizers: `[rows, heads]`, the logarithm of the sum of the exponentials of a row's scores,
///   if they are kept; else anything
#[cube(launch)]
pub(in crate::compute::gpu) fn attend<E: Float, V: Size>(
    queries: &Tensor<f32>,
    keys: &Tensor<Vector<E, V>>,
    values: &Tensor<Vector<E, V>>,
    places: &Tensor<i32>,
    out: &mut Tensor<E>,
    normalizers: &mut Tensor<f32>,
    window: usize,
    scale: f32,
    #[comptime] shape: Attention,
    #[define(E)] _element: ElemType,
) {
    let first_head = CUBE_POS_Y as usize * comptime!(shape.together);
    let row = CUBE_POS_X as usize;
    let lane = UNIT_POS_PLANE as usize;
    let plane = PLANE_POS as usize;
    let key_head = first_head / comptime!(shape.group());
    let place = row * comptime!(PLACE);
    let end = u32::cast_from(places[place + 1]) as usize + 1;
    let prefix_start = u32::cast_from(places[place + 2]) as usize;
    let prefix = u32::cast_from(places[place + 3]) as usize;
    let own_start = u32::cast_from(places[place + 4]) as usize;
    let mut begin = 0usize.runtime();
    if end > window {
        begin = end - window;
    }

    let numbers = comptime!(shape.numbers());
    let from = row * comptime!(shape.heads * shape.head_dim) + first_head * comptime!(shape.head_dim);
    let mut query = Array::<f32>::new(comptime!(shape.together * shape.numbers()));
    let mut mixed = Array::<f32>::new(comptime!(shape.together * shape.numbers()));
    let mut best = Array::<f32>::new(comptime!(shape.together));
    let mut sum = Array::<f32>::new(comptime!(shape.together));
    #[unroll]
    for head in 0..comptime!(shape.together) {
        best[head] = f32::new(-3.0e38);
        sum[head] = 0.0f32;
        #[unroll]
        for piece in 0..comptime!(shape.pieces()) {
            #[unroll]
            for part in 0..comptime!(shape.vector) {
                let number = (piece * comptime!(shape.plane) + lane) * comptime!(shape.vector) + part;
                let at = head * numbers + piece * comptime!(shape.vector) + part;
                mixed[at] = 0.0f32;
                query[at] = 0.0f32;
                if number < comptime!(shape.head_dim) {
                    query[at] = queries[from + head * comptime!(shape.head_dim) + number] * scale;
                }
            }
        }
    }

    let mut value = Array::<f32>::new(comptime!(KEYS * shape.numbers()));
    let mut scores = Array::<f32>::new(comptime!(KEYS * shape.together));
    let mut position = begin + plane;
    while position < end {
        #[unroll]
        for key in 0..comptime!(KEYS) {
            let there = position + key * comptime!(shape.planes());
            let at = position_at(min(there, end - 1), prefix_start, prefix, own_start);
            let first = (at * comptime!(shape.key_value_heads) + key_head) * comptime!(shape.head_dim / shape.vector);
            #[unroll]
            for head in 0..comptime!(shape.together) {
                scores[key * comptime!(shape.together) + head] = 0.0f32;
            }
            #[unroll]
            for piece in 0..comptime!(shape.pieces()) {
                let vector = piece * comptime!(shape.plane) + lane;
                // Numbers outside of the head have a query of 0.
                let inside = first + min(vector, comptime!(shape.head_dim / shape.vector - 1));
                let of_key = keys[inside];
                let of_value = values[inside];
                #[unroll]
                for part in 0..comptime!(shape.vector) {
                    let number = piece * comptime!(shape.vector) + part;
                    value[key * numbers + number] = f32::cast_from(of_value.extract(part));
                    let of_key = f32::cast_from(of_key.extract(part));
                    #[unroll]
                    for head in 0..comptime!(shape.together) {
                        let at = key * comptime!(shape.together) + head;
                        scores[at] += query[head * numbers + number] * of_key;
                    }
                }
            }
        }
        #[unroll]
        for head in 0..comptime!(shape.together) {
            let mut greatest = best[head];
            #[unroll]
            for key in 0..comptime!(KEYS) {
                let at = key * comptime!(shape.together) + head;
                let mut score = plane_sum(scores[at]);
                if position + key * comptime!(shape.planes()) >= end {
                    score = f32::new(-3.0e38);
                }
                scores[at] = score;
                greatest = max(greatest, score);
            }
            let correction = (best[head] - greatest).exp();
            best[head] = greatest;
            sum[head] *= correction;
            #[unroll]
            for number in 0..numbers {
                mixed[head * numbers + number] *= correction;
            }
            #[unroll]
            for key in 0..comptime!(KEYS) {
                let weight = (scores[key * comptime!(shape.together) + head] - greatest).exp();
                sum[head] += weight;
                #[unroll]
                for number in 0..numbers {
                    mixed[head * numbers + number] += weight * value[key * numbers + number];
                }
            }
        }
        position += comptime!(KEYS * shape.planes());
    }

    let mut bests = Shared::<[f32]>::new_slice(comptime!(shape.planes() * shape.together));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(shape.planes() * shape.together));
    let mut mixes = Shared::<[f32]>::new_slice(comptime!(shape.planes() * shape.together * shape.head_dim));
    #[unroll]
    for head in 0..comptime!(shape.together) {
        let of_head = plane * comptime!(shape.together) + head;
        if lane == 0 {
            bests[of_head] = best[head];
            sums[of_head] = sum[head];
        }
        #[unroll]
        for piece in 0..comptime!(shape.pieces()) {
            #[unroll]
            for part in 0..comptime!(shape.vector) {
                let number = (piece * comptime!(shape.plane) + lane) * comptime!(shape.vector) + part;
                if number < comptime!(shape.head_dim) {
                    mixes[of_head * comptime!(shape.head_dim) + number] = mixed[head * numbers + piece * comptime!(shape.vector) + part];
                }
            }
        }
    }
    sync_cube();
    let mut at = UNIT_POS as usize;
    while at < comptime!(shape.together * shape.head_dim) {
        let head = at / comptime!(shape.head_dim);
        let number = at % comptime!(shape.head_dim);
        let mut greatest = f32::new(-3.0e38);
        for plane in 0..comptime!(shape.planes()) {
            greatest = max(greatest, bests[plane * comptime!(shape.together) + head]);
        }
        let mut all = 0.0f32;
        let mut mix = 0.0f32;
        for plane in 0..comptime!(shape.planes()) {
            let of_head = plane * comptime!(shape.together) + head;
            let correction = (bests[of_head] - greatest).exp();
            all += sums[of_head] * correction;
            mix += mixes[of_head * comptime!(shape.head_dim) + number] * correction;
        }
        if comptime!(shape.keeps) && number == 0 {
            normalizers[row * comptime!(shape.heads) + first_head + head] = greatest + all.ln();
        }
        let column = first_head * comptime!(shape.head_dim) + at;
        out[place_in(row, column, comptime!(shape.heads * shape.head_dim), shape.in_tiles)] = E::cast_from(mix / all);
        at += comptime!(UNITS);
    }
}
