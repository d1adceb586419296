//! What a GPU computes between the matrix products of a decoder, as kernels in cubecl.
//!
//! A row is one position of one sequence. Numbers between the products are f32; what a product reads, and keys and values, are of the element type that the
//! weights are stored in. Sums have one order, whatever else is computed beside them. Knows nothing of weights, models or clients.

use cubecl::prelude::*;

/// How many units (threads) a cube has that works on one row.
pub(super) const UNITS: usize = 256;

/// What a row's place is made of, in this order: its token, its position in the sequence, where the keys of its prefix begin, how many these are, and where
/// those of its own sequence begin.
pub(super) const PLACE: usize = 5;

/// What is found for each drawn token: the token, its logprob, the first token whose logit is not finite, or -1, and that logit.
pub(super) const DRAWN: usize = 4;

/// Above any vocabulary, and exact in f32.
const NO_TOKEN: f32 = 16_777_216.0;

/// How many units a cube has that draws a token.
pub(super) const DRAWERS: usize = 1024;

/// The sum over all units of a cube, known to all. `shared` has a number a unit, and is free afterwards.
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

/// Where a number stands in a matrix of so wide rows that products read, which is in tiles of [`TILE`] by [`TILE`] where they are of tiles.
#[cube]
fn place_in(row: usize, column: usize, width: usize, #[comptime] in_tiles: bool) -> usize {
    let mut place = row * width + column;
    if comptime!(in_tiles) {
        let tile = row / comptime!(TILE) * (width / comptime!(TILE)) + column / comptime!(TILE);
        place = tile * comptime!(TILE * TILE) + row % comptime!(TILE) * comptime!(TILE) + column % comptime!(TILE);
    }
    place
}

/// The side of the square tiles that tensor cores multiply.
pub(super) const TILE: usize = 16;

/// How many planes (warps) of a cube add up a part of each product.
pub(super) const PLANES: usize = 8;

/// `out = x · weight` for few rows, by tensor cores. Reading the weights is what takes the time then, and one tile after the other is too few to wait for: so the
/// planes of a cube share the inner dimension between them and add up what they found at the end, in their order. A cube has `row_tiles` tiles of rows
/// and `column_tiles` of columns; weights are read once for each tile of rows, in the order in which they stand in memory.
///
/// # Shapes
/// - x: `[rows / TILE, inner / TILE, TILE, TILE]`: see [`tiles`](super::tiles)
/// - weight: `[columns / TILE, inner / TILE, TILE, TILE]`, of the transpose
/// - out: `[rows, columns]`
#[cube(launch)]
pub(super) fn product_of_tiles<E: Float>(
    x: &[E],
    weight: &[E],
    out: &mut [f32],
    inner: usize,
    columns: usize,
    #[comptime] row_tiles: usize,
    #[comptime] column_tiles: usize,
    #[comptime] together: usize,
    #[define(E)] _element: ElemType,
) {
    // Cubes of the same columns stand beside each other, so that they find the weights in the cache.
    let first_row = CUBE_POS_X as usize * row_tiles;
    let first_column = CUBE_POS_Y as usize * column_tiles;
    let plane = UNIT_POS_Y as usize;
    let tiles = inner / comptime!(TILE);
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(row_tiles * column_tiles) {
        sums.push(cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            16usize,
            16usize,
            16usize,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    let mut tile = plane;
    while tile < tiles {
        // So many at once that there are no more of them than tiles: see `together`.
        let mut lefts = Sequence::<cmma::Matrix<E>>::new();
        let mut rights = Sequence::<cmma::Matrix<E>>::new();
        #[unroll]
        for ahead in 0..together {
            let there = tile + ahead * comptime!(PLANES);
            #[unroll]
            for row in 0..row_tiles {
                let from = ((first_row + row) * tiles + there) * comptime!(TILE * TILE);
                let end = x.len();
                lefts.push(cmma::Matrix::<E>::from_slice(
                    cmma::MatrixIdent::A,
                    16usize,
                    16usize,
                    16usize,
                    cmma::MatrixLayout::RowMajor,
                    &x[from..end],
                    16,
                ));
            }
            #[unroll]
            for column in 0..column_tiles {
                let from = ((first_column + column) * tiles + there) * comptime!(TILE * TILE);
                let end = weight.len();
                rights.push(cmma::Matrix::<E>::from_slice(
                    cmma::MatrixIdent::B,
                    16usize,
                    16usize,
                    16usize,
                    cmma::MatrixLayout::ColMajor,
                    &weight[from..end],
                    16,
                ));
            }
        }
        #[unroll]
        for ahead in 0..together {
            #[unroll]
            for column in 0..column_tiles {
                #[unroll]
                for row in 0..row_tiles {
                    let sum = sums.index(column * row_tiles + row);
                    cmma::execute(lefts.index(ahead * row_tiles + row), rights.index(ahead * column_tiles + column), sum, sum);
                }
            }
        }
        tile += comptime!(PLANES * together);
    }
    let size = comptime!(row_tiles * TILE * TILE);
    let mut parts = Shared::<[f32]>::new_slice(comptime!(PLANES * row_tiles * TILE * TILE));
    #[unroll]
    for column in 0..column_tiles {
        #[unroll]
        for row in 0..row_tiles {
            let from = plane * size + row * comptime!(TILE * TILE);
            let end = parts.len();
            cmma::store(&mut parts[from..end], sums.index(column * row_tiles + row), 16, cmma::MatrixLayout::RowMajor);
        }
        sync_cube();
        let mut at = UNIT_POS as usize;
        while at < size {
            let mut sum = 0.0f32;
            for plane in 0..comptime!(PLANES) {
                sum += parts[plane * size + at];
            }
            let row = first_row * comptime!(TILE) + at / comptime!(TILE);
            out[row * columns + (first_column + column) * comptime!(TILE) + at % comptime!(TILE)] = sum;
            at += comptime!(PLANES * 32);
        }
        sync_cube();
    }
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

/// Adds `change` to `x`, if `adds`, and norms that, for a product of tiles or of rows. A cube a row.
///
/// # Shapes
/// - x, change, out: `[rows, width]`
/// - weight: `[width]`
#[cube(launch)]
pub(super) fn add_norm<E: Float>(
    x: &mut Tensor<f32>,
    change: &Tensor<f32>,
    weight: &Tensor<f32>,
    out: &mut Tensor<E>,
    width: usize,
    epsilon: f32,
    #[comptime] adds: bool,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_X as usize;
    let start = row * width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut squares = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        let mut value = x[start + at];
        if comptime!(adds) {
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

/// Keeps the stream behind each sequence's last row: `kept[sequence] = x[row] + change[row]`. A cube a sequence.
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

/// Norms what was kept of some sequences. A cube a sequence that is asked for.
///
/// # Shapes
/// - kept: `[sequences, width]`
/// - sources: `[asked]`
/// - weight: `[width]`
/// - out: `[asked, width]`
#[cube(launch)]
pub(super) fn norm_kept<E: Float>(
    kept: &Tensor<f32>,
    sources: &Tensor<i32>,
    weight: &Tensor<f32>,
    out: &mut Tensor<E>,
    width: usize,
    epsilon: f32,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let row = CUBE_POS_X as usize;
    let source = u32::cast_from(sources[row]) as usize * width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut squares = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < width {
        let value = kept[source + at];
        squares += value * value;
        at += comptime!(UNITS);
    }
    let mean = total(squares, &mut shared) / f32::cast_from(width as u32);
    let scale = 1.0f32 / (mean + epsilon).sqrt();
    let mut at = UNIT_POS as usize;
    while at < width {
        out[place_in(row, at, width, in_tiles)] = E::cast_from(kept[source + at] * scale * weight[at]);
        at += comptime!(UNITS);
    }
}

/// Which parts a projection to queries, keys and values has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HeadParts {
    pub(super) bias: bool,
    pub(super) norms: bool,
    pub(super) rotary: bool,
}

/// Adds biases to queries, keys and values, norms and turns the first two, and puts keys and values where their sequence keeps them. A cube a row and head, of
/// half as many units as a head has numbers.
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
pub(super) fn place_heads<E: Float>(
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
    let head = CUBE_POS_X as usize;
    let row = CUBE_POS_Y as usize;
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
        if head < heads + key_value_heads {
            let angle = f32::cast_from(position) * angles[unit];
            let cosine = angle.cos();
            let sine = angle.sin();
            let turned = first * cosine - second * sine;
            second = second * cosine + first * sine;
            first = turned;
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
pub(super) struct Attention {
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_dim: usize,
    /// Query heads of one cube, which share their keys.
    pub(super) together: usize,
    /// Units of a plane.
    pub(super) plane: usize,
    /// Numbers that a unit reads at once.
    pub(super) vector: usize,
    pub(super) in_tiles: bool,
}

impl Attention {
    /// How often the units of a plane read a vector each, for all of a key.
    fn pieces(self) -> usize {
        self.head_dim.div_ceil(self.plane * self.vector)
    }

    /// How many numbers of a key a unit has at most.
    fn numbers(self) -> usize {
        self.pieces() * self.vector
    }

    fn planes(self) -> usize {
        UNITS / self.plane
    }

    /// How many query heads share a key head.
    fn group(self) -> usize {
        self.heads / self.key_value_heads
    }
}

/// How many keys a plane reads at once, so that it waits for them once.
const KEYS: usize = 4;

/// Attention of each row to what its sequence holds up to it, in one pass with a running softmax (Milakov and Gimelshein 2018, arXiv 1805.02867). A cube a row
/// and a few query heads with the same keys. Its planes take turns with the keys; each unit has its numbers of queries, keys, values and sums. In the end the
/// planes' sums are put together, in their order.
///
/// # Shapes
/// - queries: `[rows, heads · head_dim]`
/// - keys, values: `[positions, key_value_heads · head_dim]` in vectors
/// - places: `[rows, PLACE]`
/// - out: `[rows, heads · head_dim]`
#[cube(launch)]
pub(super) fn attend<E: Float, V: Size>(
    queries: &Tensor<f32>,
    keys: &Tensor<Vector<E, V>>,
    values: &Tensor<Vector<E, V>>,
    places: &Tensor<i32>,
    out: &mut Tensor<E>,
    window: usize,
    scale: f32,
    #[comptime] shape: Attention,
    #[define(E)] _element: ElemType,
) {
    let first_head = CUBE_POS_X as usize * comptime!(shape.together);
    let row = CUBE_POS_Y as usize;
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
                // What is outside of the head has a query of 0.
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
                        scores[at] = scores[at] + query[head * numbers + number] * of_key;
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
            sum[head] = sum[head] * correction;
            #[unroll]
            for number in 0..numbers {
                mixed[head * numbers + number] = mixed[head * numbers + number] * correction;
            }
            #[unroll]
            for key in 0..comptime!(KEYS) {
                let weight = (scores[key * comptime!(shape.together) + head] - greatest).exp();
                sum[head] = sum[head] + weight;
                #[unroll]
                for number in 0..numbers {
                    mixed[head * numbers + number] = mixed[head * numbers + number] + weight * value[key * numbers + number];
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
            mix += mixes[of_head * comptime!(shape.head_dim) + at % comptime!(shape.head_dim)] * correction;
        }
        let column = first_head * comptime!(shape.head_dim) + at;
        out[place_in(row, column, comptime!(shape.heads * shape.head_dim), shape.in_tiles)] = E::cast_from(mix / all);
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
    let row = CUBE_POS_Y as usize;
    let column = CUBE_POS_X as usize * comptime!(UNITS) + UNIT_POS as usize;
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
    let row = CUBE_POS_Y as usize;
    let column = CUBE_POS_X as usize * comptime!(UNITS) + UNIT_POS as usize;
    if column < width {
        x[row * width + column] = x[row * width + column] + bias[column];
    }
}

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    /// The likeliest.
    Greedy,
    /// From all.
    All,
    /// From those that are left after top-k and top-p.
    Some,
}

/// Draws a token from each row of logits, as [`Sampler`](crate::generation::Sampler) does: temperature, top-k, top-p. The logits are used up. A cube a row.
///
/// # Shapes
/// - logits: `[rows, columns]`
/// - uniforms: `[rows]`, from 0 to less than 1
/// - out: `[rows, DRAWN]`
#[cube(launch)]
pub(super) fn draw(
    logits: &mut Tensor<f32>,
    uniforms: &Tensor<f32>,
    out: &mut Tensor<f32>,
    columns: usize,
    vocabulary: usize,
    inverse_temperature: f32,
    top_p: f32,
    top_k: u32,
    #[comptime] choice: Choice,
) {
    let row = CUBE_POS_X as usize;
    let start = row * columns;
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(DRAWERS);

    // The largest, the first token that has it, and the first that is not finite.
    let mut best = f32::new(-3.0e38);
    let mut broken = f32::new(NO_TOKEN);
    let mut at = unit;
    while at < vocabulary {
        let logit = logits[start + at];
        if logit.abs() <= 3.4e38f32 {
            best = max(best, logit);
        } else {
            broken = min(broken, f32::cast_from(at as u32));
        }
        at += comptime!(DRAWERS);
    }
    let best = largest(best, &mut shared);
    let broken = -largest(-broken, &mut shared);
    let mut first = f32::new(NO_TOKEN);
    let mut at = unit;
    while at < vocabulary {
        if logits[start + at] == best {
            first = min(first, f32::cast_from(at as u32));
        }
        at += comptime!(DRAWERS);
    }
    let first = -largest(-first, &mut shared);
    let result = row * comptime!(DRAWN);
    if unit == 0 {
        out[result] = first;
        out[result + 1] = 0.0f32;
        out[result + 2] = -1.0f32;
        out[result + 3] = 0.0f32;
        if broken < NO_TOKEN {
            out[result + 2] = broken;
            out[result + 3] = logits[start + u32::cast_from(broken) as usize];
        }
    }
    if comptime!(choice != Choice::Greedy) {
        // Weights relative to the likeliest token's.
        let mut at = unit;
        while at < vocabulary {
            logits[start + at] = ((logits[start + at] - best) * inverse_temperature).exp();
            at += comptime!(DRAWERS);
        }
        sync_cube();
        // Each unit has a stretch of the vocabulary of its own.
        let stretch = vocabulary.div_ceil(comptime!(DRAWERS));
        let begin = min(unit * stretch, vocabulary);
        let end = min(begin + stretch, vocabulary);
        if comptime!(choice == Choice::Some) {
            if top_k > 0 && (top_k as usize) < vocabulary {
                let wanted = f32::cast_from(top_k);
                let least = least_kept(logits, start, vocabulary, wanted, false, &mut shared);
                let above = above(logits, start, vocabulary, least + 1u32, false, &mut shared);
                drop_below(logits, start, begin, end, least, wanted - above, &mut shared);
            }
            if top_p < 1.0f32 {
                let wanted = top_p * above(logits, start, vocabulary, 1u32, true, &mut shared);
                let least = least_kept(logits, start, vocabulary, wanted, true, &mut shared);
                let above = above(logits, start, vocabulary, least + 1u32, true, &mut shared);
                let ties = max(((wanted - above) / f32::reinterpret(least)).ceil(), 1.0f32);
                drop_below(logits, start, begin, end, least, ties, &mut shared);
            }
        }
        let mut own = 0.0f32;
        for at in begin..end {
            own += logits[start + at];
        }
        shared[unit] = own;
        sync_cube();
        let mut before = 0.0f32;
        let mut mass = 0.0f32;
        for other in 0..comptime!(DRAWERS) {
            if other == unit {
                before = mass;
            }
            mass += shared[other];
        }
        let target = uniforms[row] * mass;
        if target >= before && target < before + own {
            let mut sum = before;
            let mut picked = f32::new(NO_TOKEN);
            let mut weight = 0.0f32;
            let mut at = begin;
            while at < end {
                let next = logits[start + at];
                if next > 0.0f32 && sum <= target {
                    picked = f32::cast_from(at as u32);
                    weight = next;
                }
                sum += next;
                at += 1;
            }
            out[result] = picked;
            out[result + 1] = (weight / mass).ln();
        }
    }
}

/// How many weights have at least the bits `least`, or what they sum up to. Of numbers that are not negative, greater ones have greater bits.
#[cube]
fn above(
    weights: &mut Tensor<f32>,
    start: usize,
    vocabulary: usize,
    least: u32,
    #[comptime] mass: bool,
    shared: &mut Shared<[f32]>,
) -> f32 {
    let mut own = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < vocabulary {
        let weight = weights[start + at];
        if u32::reinterpret(weight) >= least {
            if comptime!(mass) {
                own += weight;
            } else {
                own += 1.0f32;
            }
        }
        at += comptime!(DRAWERS);
    }
    total(own, shared)
}

/// The bits of the greatest weight such that those not below it are as many, or have as much mass, as `wanted`: two bits after the other,
/// so that nothing is sorted.
#[cube]
fn least_kept(
    weights: &mut Tensor<f32>,
    start: usize,
    vocabulary: usize,
    wanted: f32,
    #[comptime] mass: bool,
    shared: &mut Shared<[f32]>,
) -> u32 {
    let mut least = 0u32;
    // Weights are at most 1, whose bits are below 2^30.
    let mut bit = 268_435_456u32;
    while bit > 0u32 {
        let mut one = 0.0f32;
        let mut two = 0.0f32;
        let mut three = 0.0f32;
        let mut at = UNIT_POS as usize;
        while at < vocabulary {
            let weight = weights[start + at];
            let bits = u32::reinterpret(weight);
            let mut counted = weight;
            if comptime!(!mass) {
                counted = 1.0f32;
            }
            if bits >= least + bit {
                one += counted;
            }
            if bits >= least + 2u32 * bit {
                two += counted;
            }
            if bits >= least + 3u32 * bit {
                three += counted;
            }
            at += comptime!(DRAWERS);
        }
        if total(three, shared) >= wanted {
            least += 3u32 * bit;
        } else if total(two, shared) >= wanted {
            least += 2u32 * bit;
        } else if total(one, shared) >= wanted {
            least += bit;
        }
        bit = bit >> 2u32;
    }
    least
}

/// Makes the weights of a unit's stretch 0 that are below `least`, and of those that equal it all but the first `ties` of the vocabulary.
#[cube]
fn drop_below(weights: &mut Tensor<f32>, start: usize, begin: usize, end: usize, least: u32, ties: f32, shared: &mut Shared<[f32]>) {
    let unit = UNIT_POS as usize;
    let mut own = 0.0f32;
    for at in begin..end {
        if u32::reinterpret(weights[start + at]) == least {
            own += 1.0f32;
        }
    }
    shared[unit] = own;
    sync_cube();
    let mut tie = 0.0f32;
    for other in 0..unit {
        tie += shared[other];
    }
    for at in begin..end {
        let bits = u32::reinterpret(weights[start + at]);
        if bits < least {
            weights[start + at] = 0.0f32;
        }
        if bits == least {
            tie += 1.0f32;
            if tie > ties {
                weights[start + at] = 0.0f32;
            }
        }
    }
    sync_cube();
}
