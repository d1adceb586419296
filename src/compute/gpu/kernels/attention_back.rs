//! The backward pass of attention and the rotation of heads, without atomic additions: first to the
//! queries, then to keys and values. Sequences are rows of one length, each from its first position
//! on. Knows nothing of weights.

use cubecl::prelude::*;

use super::{Attention, UNITS};

/// The backward pass to the queries (Dao 2023, arXiv 2307.08691, algorithm 2). A cube a row and a
/// few query heads with the same keys, whose planes take turns with the keys. With p the
/// probabilities, which come from the scores and their normalizers, and δ = by_out · out: by_query
/// = Σ p · (by_out · value − δ) · key · scale, rotated back.
///
/// # Shapes
/// - queries, out, by_out: `[rows, heads · head_dim]`
/// - keys, values: `[rows, key_value_heads · head_dim]`
/// - normalizers: `[rows, heads]`, see [`attend`](super::attend)
/// - angles: `[head_dim / 2]`, a position
/// - deltas: `[rows, heads]`, δ
/// - by_qkv: `[rows, (heads + 2 · key_value_heads) · head_dim]`
#[cube(launch)]
pub(in crate::compute::gpu) fn attend_back_to_queries(
    queries: &Tensor<f32>,
    keys: &Tensor<f32>,
    values: &Tensor<f32>,
    out: &Tensor<f32>,
    normalizers: &Tensor<f32>,
    by_out: &Tensor<f32>,
    angles: &Tensor<f32>,
    deltas: &mut Tensor<f32>,
    by_qkv: &mut Tensor<f32>,
    length: usize,
    window: usize,
    scale: f32,
    #[comptime] shape: Attention,
    #[comptime] rotary: bool,
) {
    let first_head = CUBE_POS_Y as usize * comptime!(shape.together);
    let row = CUBE_POS_X as usize;
    let lane = UNIT_POS_PLANE as usize;
    let plane = PLANE_POS as usize;
    let key_head = first_head / comptime!(shape.group());
    let position = row % length;
    let mut begin = row - position;
    if position + 1 > window {
        begin = row + 1 - window;
    }

    let pieces = comptime!(shape.pieces());
    let from = (row * comptime!(shape.heads) + first_head) * comptime!(shape.head_dim);
    let mut query = Array::<f32>::new(comptime!(shape.together * shape.pieces()));
    let mut by = Array::<f32>::new(comptime!(shape.together * shape.pieces()));
    let mut found = Array::<f32>::new(comptime!(shape.together * shape.pieces()));
    let mut delta = Array::<f32>::new(comptime!(shape.together));
    let mut normalizer = Array::<f32>::new(comptime!(shape.together));
    #[unroll]
    for head in 0..comptime!(shape.together) {
        let mut common = 0.0f32;
        #[unroll]
        for piece in 0..pieces {
            let number = piece * comptime!(shape.plane) + lane;
            let at = head * pieces + piece;
            query[at] = 0.0f32;
            by[at] = 0.0f32;
            found[at] = 0.0f32;
            if number < comptime!(shape.head_dim) {
                let there = from + head * comptime!(shape.head_dim) + number;
                query[at] = queries[there] * scale;
                by[at] = by_out[there];
                common += by_out[there] * out[there];
            }
        }
        delta[head] = plane_sum(common);
        normalizer[head] = normalizers[row * comptime!(shape.heads) + first_head + head];
        if UNIT_POS == 0 {
            deltas[row * comptime!(shape.heads) + first_head + head] = delta[head];
        }
    }

    let mut key = Array::<f32>::new(comptime!(shape.pieces()));
    let mut value = Array::<f32>::new(comptime!(shape.pieces()));
    let mut there = begin + plane;
    while there <= row {
        let first = (there * comptime!(shape.key_value_heads) + key_head) * comptime!(shape.head_dim);
        #[unroll]
        for piece in 0..pieces {
            // Numbers outside of the head have a query and a derivative of 0.
            let number = min(piece * comptime!(shape.plane) + lane, comptime!(shape.head_dim - 1));
            key[piece] = keys[first + number];
            value[piece] = values[first + number];
        }
        #[unroll]
        for head in 0..comptime!(shape.together) {
            let mut score = 0.0f32;
            let mut by_probability = 0.0f32;
            #[unroll]
            for piece in 0..pieces {
                score += query[head * pieces + piece] * key[piece];
                by_probability += by[head * pieces + piece] * value[piece];
            }
            let probability = (plane_sum(score) - normalizer[head]).exp();
            let by_score = probability * (plane_sum(by_probability) - delta[head]);
            #[unroll]
            for piece in 0..pieces {
                found[head * pieces + piece] += by_score * key[piece];
            }
        }
        there += comptime!(shape.planes());
    }

    let mut parts = Shared::<[f32]>::new_slice(comptime!(shape.planes() * shape.together * shape.head_dim));
    #[unroll]
    for head in 0..comptime!(shape.together) {
        #[unroll]
        for piece in 0..pieces {
            let number = piece * comptime!(shape.plane) + lane;
            if number < comptime!(shape.head_dim) {
                parts[(plane * comptime!(shape.together) + head) * comptime!(shape.head_dim) + number] =
                    found[head * pieces + piece] * scale;
            }
        }
    }
    sync_cube();
    let width = comptime!((shape.heads + 2 * shape.key_value_heads) * shape.head_dim);
    let mut at = UNIT_POS as usize;
    while at < comptime!(shape.together * shape.head_dim / 2) {
        let head = at / comptime!(shape.head_dim / 2);
        let pair = at % comptime!(shape.head_dim / 2);
        let to = row * width + (first_head + head) * comptime!(shape.head_dim) + pair;
        let part = head * comptime!(shape.head_dim) + pair;
        put_pair(&parts, part, comptime!(shape.together * shape.head_dim), angles, position, pair, by_qkv, to, shape, rotary);
        at += comptime!(UNITS);
    }
}

/// The backward pass to keys and values, after that to the queries, which leaves `deltas`. A cube a
/// row and key head, whose planes take turns with the queries that see it: by_value = Σ p · by_out,
/// by_key = Σ p · (by_out · value − δ) · query · scale, rotated back.
///
/// # Shapes
/// As for [`attend_back_to_queries`].
#[cube(launch)]
pub(in crate::compute::gpu) fn attend_back_to_keys(
    queries: &Tensor<f32>,
    keys: &Tensor<f32>,
    values: &Tensor<f32>,
    normalizers: &Tensor<f32>,
    by_out: &Tensor<f32>,
    angles: &Tensor<f32>,
    deltas: &Tensor<f32>,
    by_qkv: &mut Tensor<f32>,
    length: usize,
    window: usize,
    scale: f32,
    #[comptime] shape: Attention,
    #[comptime] rotary: bool,
) {
    let key_head = CUBE_POS_Y as usize;
    let row = CUBE_POS_X as usize;
    let lane = UNIT_POS_PLANE as usize;
    let plane = PLANE_POS as usize;
    let position = row % length;
    let mut end = row - position + length;
    if length - position > window {
        end = row + window;
    }

    let pieces = comptime!(shape.pieces());
    let first = (row * comptime!(shape.key_value_heads) + key_head) * comptime!(shape.head_dim);
    let mut key = Array::<f32>::new(comptime!(shape.pieces()));
    let mut value = Array::<f32>::new(comptime!(shape.pieces()));
    let mut by_key = Array::<f32>::new(comptime!(shape.pieces()));
    let mut by_value = Array::<f32>::new(comptime!(shape.pieces()));
    #[unroll]
    for piece in 0..pieces {
        let number = piece * comptime!(shape.plane) + lane;
        key[piece] = 0.0f32;
        value[piece] = 0.0f32;
        by_key[piece] = 0.0f32;
        by_value[piece] = 0.0f32;
        if number < comptime!(shape.head_dim) {
            key[piece] = keys[first + number] * scale;
            value[piece] = values[first + number];
        }
    }

    let mut query = Array::<f32>::new(comptime!(shape.pieces()));
    let mut by = Array::<f32>::new(comptime!(shape.pieces()));
    let mut there = row + plane;
    while there < end {
        #[unroll]
        for member in 0..comptime!(shape.group()) {
            let head = key_head * comptime!(shape.group()) + member;
            let from = (there * comptime!(shape.heads) + head) * comptime!(shape.head_dim);
            let mut score = 0.0f32;
            let mut by_probability = 0.0f32;
            #[unroll]
            for piece in 0..pieces {
                // Numbers outside of the head have a key and a value of 0.
                let number = min(piece * comptime!(shape.plane) + lane, comptime!(shape.head_dim - 1));
                query[piece] = queries[from + number];
                by[piece] = by_out[from + number];
                score += query[piece] * key[piece];
                by_probability += by[piece] * value[piece];
            }
            let of_head = there * comptime!(shape.heads) + head;
            let probability = (plane_sum(score) - normalizers[of_head]).exp();
            let by_score = probability * (plane_sum(by_probability) - deltas[of_head]);
            #[unroll]
            for piece in 0..pieces {
                by_key[piece] += by_score * query[piece];
                by_value[piece] += probability * by[piece];
            }
        }
        there += comptime!(shape.planes());
    }

    // A plane's part of the key, and its part of the value.
    let mut parts = Shared::<[f32]>::new_slice(comptime!(shape.planes() * 2 * shape.head_dim));
    #[unroll]
    for piece in 0..pieces {
        let number = piece * comptime!(shape.plane) + lane;
        if number < comptime!(shape.head_dim) {
            let to = plane * comptime!(2 * shape.head_dim) + number;
            parts[to] = by_key[piece] * scale;
            parts[to + comptime!(shape.head_dim)] = by_value[piece];
        }
    }
    sync_cube();
    let width = comptime!((shape.heads + 2 * shape.key_value_heads) * shape.head_dim);
    let to = row * width + (comptime!(shape.heads) + key_head) * comptime!(shape.head_dim);
    let mut pair = UNIT_POS as usize;
    while pair < comptime!(shape.head_dim / 2) {
        let stride = comptime!(2 * shape.head_dim);
        put_pair(&parts, pair, stride, angles, position, pair, by_qkv, to + pair, shape, rotary);
        let to = to + comptime!(shape.key_value_heads * shape.head_dim);
        put_pair(&parts, comptime!(shape.head_dim) + pair, stride, angles, position, pair, by_qkv, to + pair, shape, comptime!(false));
        pair += comptime!(UNITS);
    }
}

/// Adds up what the planes, `stride` numbers each, have of a pair of a head's numbers, turns it
/// back and puts it to `to`.
#[cube]
fn put_pair(
    parts: &Shared<[f32]>,
    part: usize,
    stride: usize,
    angles: &Tensor<f32>,
    position: usize,
    pair: usize,
    by_qkv: &mut Tensor<f32>,
    to: usize,
    #[comptime] shape: Attention,
    #[comptime] rotary: bool,
) {
    let half = comptime!(shape.head_dim / 2);
    let mut first = 0.0f32;
    let mut second = 0.0f32;
    for plane in 0..comptime!(shape.planes()) {
        first += parts[plane * stride + part];
        second += parts[plane * stride + part + half];
    }
    if comptime!(rotary) {
        let angle = f32::cast_from(position as u32) * angles[pair];
        let cosine = angle.cos();
        let sine = angle.sin();
        let rotated = first * cosine + second * sine;
        second = second * cosine - first * sine;
        first = rotated;
    }
    by_qkv[to] = first;
    by_qkv[to + half] = second;
}
