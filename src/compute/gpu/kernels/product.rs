//! Products of matrices in tiles, by tensor cores. Knows nothing of the factors.

use cubecl::prelude::*;

/// The side of the square tiles of tensor cores.
pub(in crate::compute::gpu) const TILE: usize = 16;

/// How many planes (warps) a cube of a product has.
pub(in crate::compute::gpu) const PLANES: usize = 8;

/// How a product is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::compute::gpu) struct Cut {
    /// Tiles of rows of a plane.
    pub(in crate::compute::gpu) rows: usize,
    /// And of columns.
    pub(in crate::compute::gpu) columns: usize,
    /// Tiles of the inner dimension read by a plane at once, to wait for them once.
    pub(in crate::compute::gpu) together: usize,
    /// How many planes of a cube stand under each other, beside each other, and share the inner
    /// dimension: [`PLANES`] in all.
    pub(in crate::compute::gpu) planes: [usize; 3],
    /// Whether the left factor is the transpose of the given matrix.
    pub(in crate::compute::gpu) left_transposed: bool,
    /// The same of the right one.
    pub(in crate::compute::gpu) right_transposed: bool,
}

impl Cut {
    fn left_layout(self) -> cmma::MatrixLayout {
        if self.left_transposed { cmma::MatrixLayout::ColMajor } else { cmma::MatrixLayout::RowMajor }
    }

    fn right_layout(self) -> cmma::MatrixLayout {
        if self.right_transposed { cmma::MatrixLayout::ColMajor } else { cmma::MatrixLayout::RowMajor }
    }
}

/// `out = left · right`, by tensor cores. A plane adds up some tiles of the product; where these
/// are too few for a GPU, the planes of a cube share the inner dimension between them, and what
/// they found is added up at the end, in their order. Cubes of the same columns stand beside each
/// other, so that they find the right factor in the cache.
///
/// # Shapes
/// - left: `[rows / TILE, inner / TILE, TILE, TILE]`, or of its transpose: see
///   [`tiles`](crate::compute::gpu::decoder::weights::tiles)
/// - right: `[inner / TILE, columns / TILE, TILE, TILE]`, or of its transpose
/// - out: `[rows, columns]`
/// - rows, inner, columns: how many tiles
/// - left_first, left_row, left_inner: how many tiles of `left` lie before its first, and between
///   one and the next of its rows and of the inner dimension
/// - right_first, right_inner, right_column: the same of `right`, with its columns
#[cube(launch)]
pub(in crate::compute::gpu) fn product_of_tiles<E: Float>(
    left: &[E],
    right: &[E],
    out: &mut [f32],
    rows: usize,
    inner: usize,
    columns: usize,
    left_first: usize,
    left_row: usize,
    left_inner: usize,
    right_first: usize,
    right_inner: usize,
    right_column: usize,
    #[comptime] cut: Cut,
    #[define(E)] _element: ElemType,
) {
    let plane = UNIT_POS_Y as usize;
    let part = plane % comptime!(cut.planes[2]);
    let block = plane / comptime!(cut.planes[2]);
    let first_row = (CUBE_POS_X as usize * comptime!(cut.planes[0]) + block / comptime!(cut.planes[1])) * comptime!(cut.rows);
    let first_column = (CUBE_POS_Y as usize * comptime!(cut.planes[1]) + block % comptime!(cut.planes[1])) * comptime!(cut.columns);
    let is_inside = first_row < rows && first_column < columns;
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(cut.rows * cut.columns) {
        sums.push(cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            16usize,
            16usize,
            16usize,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    let mut tile = part;
    if !is_inside {
        tile = inner;
    }
    while tile < inner {
        let mut lefts = Sequence::<cmma::Matrix<E>>::new();
        let mut rights = Sequence::<cmma::Matrix<E>>::new();
        #[unroll]
        for ahead in 0..cut.together {
            let there = tile + ahead * comptime!(cut.planes[2]);
            #[unroll]
            for row in 0..cut.rows {
                let from = (left_first + (first_row + row) * left_row + there * left_inner) * comptime!(TILE * TILE);
                let end = left.len();
                lefts.push(cmma::Matrix::<E>::from_slice(
                    cmma::MatrixIdent::A,
                    16usize,
                    16usize,
                    16usize,
                    comptime!(cut.left_layout()),
                    &left[from..end],
                    16,
                ));
            }
            #[unroll]
            for column in 0..cut.columns {
                let from = (right_first + there * right_inner + (first_column + column) * right_column) * comptime!(TILE * TILE);
                let end = right.len();
                rights.push(cmma::Matrix::<E>::from_slice(
                    cmma::MatrixIdent::B,
                    16usize,
                    16usize,
                    16usize,
                    comptime!(cut.right_layout()),
                    &right[from..end],
                    16,
                ));
            }
        }
        #[unroll]
        for ahead in 0..cut.together {
            #[unroll]
            for column in 0..cut.columns {
                #[unroll]
                for row in 0..cut.rows {
                    let sum = sums.index(column * cut.rows + row);
                    cmma::execute(lefts.index(ahead * cut.rows + row), rights.index(ahead * cut.columns + column), sum, sum);
                }
            }
        }
        tile += comptime!(cut.planes[2] * cut.together);
    }
    let width = columns * comptime!(TILE);
    if comptime!(cut.planes[2] == 1) {
        if is_inside {
            #[unroll]
            for column in 0..cut.columns {
                #[unroll]
                for row in 0..cut.rows {
                    let from = (first_row + row) * comptime!(TILE) * width + (first_column + column) * comptime!(TILE);
                    let end = out.len();
                    cmma::store(&mut out[from..end], sums.index(column * cut.rows + row), width as u32, cmma::MatrixLayout::RowMajor);
                }
            }
        }
    } else {
        let size = comptime!(cut.rows * TILE * TILE);
        let mut parts = Shared::<[f32]>::new_slice(comptime!(PLANES * cut.rows * TILE * TILE));
        #[unroll]
        for column in 0..cut.columns {
            #[unroll]
            for row in 0..cut.rows {
                let from = plane * size + row * comptime!(TILE * TILE);
                let end = parts.len();
                cmma::store(&mut parts[from..end], sums.index(column * cut.rows + row), 16, cmma::MatrixLayout::RowMajor);
            }
            sync_cube();
            if is_inside {
                let mut at = part * 32 + UNIT_POS_X as usize;
                while at < size {
                    let mut sum = 0.0f32;
                    for part in 0..comptime!(cut.planes[2]) {
                        sum += parts[(block * comptime!(cut.planes[2]) + part) * size + at];
                    }
                    let row = first_row * comptime!(TILE) + at / comptime!(TILE);
                    out[row * width + (first_column + column) * comptime!(TILE) + at % comptime!(TILE)] = sum;
                    at += comptime!(cut.planes[2] * 32);
                }
            }
            sync_cube();
        }
    }
}

/// Puts a matrix into columns of a wider one, of tiles or of rows. A unit a vector; rows past the
/// matrix's are 0.
///
/// # Shapes
/// - from: `[rows, columns]` in vectors, so many as `vectors` says
/// - to: `[rows or more, width]` in vectors, from column `first` on; see
///   [`tiles`](crate::compute::gpu::decoder::weights::tiles)
#[cfg(feature = "cuda")]
#[cube(launch)]
pub(in crate::compute::gpu) fn put_columns<E: Float, V: Size>(
    from: &Tensor<Vector<f32, V>>,
    to: &mut Tensor<Vector<E, V>>,
    vectors: usize,
    columns: usize,
    first: usize,
    width: usize,
    rows: usize,
    #[comptime] vector: usize,
    #[comptime] in_tiles: bool,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    let row = at / columns;
    let column = first + at % columns;
    if row < rows {
        let mut place = row * width + column;
        if comptime!(in_tiles) {
            let across = comptime!(TILE / vector);
            let tile = row / comptime!(TILE) * (width / across) + column / across;
            place = tile * comptime!(TILE * TILE / vector) + row % comptime!(TILE) * across + column % across;
        }
        let mut value = Vector::<E, V>::new(E::from_int(0));
        if at < vectors {
            value = Vector::cast_from(from[at]);
        }
        to[place] = value;
    }
}
