//! The product of a few rows and a large matrix, by tensor cores. Knows nothing of what is multiplied.

use cubecl::prelude::*;

/// The side of the square tiles that tensor cores multiply.
pub(in crate::model::gpu) const TILE: usize = 16;

/// How many planes (warps) of a cube add up a part of each product.
pub(in crate::model::gpu) const PLANES: usize = 8;

/// `out = x · weight` for few rows, by tensor cores. Reading the weights is what takes the time then, and one tile after the other is too few to wait for: so the
/// planes of a cube share the inner dimension between them and add up what they found at the end, in their order. A cube has `row_tiles` tiles of rows
/// and `column_tiles` of columns; weights are read once for each tile of rows, in the order in which they stand in memory.
///
/// # Shapes
/// - x: `[rows / TILE, inner / TILE, TILE, TILE]`: see [`tiles`](crate::model::gpu::weights::tiles)
/// - weight: `[columns / TILE, inner / TILE, TILE, TILE]`, of the transpose
/// - out: `[rows, columns]`
#[cube(launch)]
pub(in crate::model::gpu) fn product_of_tiles<E: Float>(
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

/// Puts a matrix into columns of a wider one. A unit a vector.
///
/// # Shapes
/// - from: `[rows, columns]` in vectors, so many as `vectors` says
/// - to: `[rows, width]` in vectors, from column `first` on
#[cfg(feature = "cuda")]
#[cube(launch)]
pub(in crate::model::gpu) fn put_columns<E: Float, V: Size>(
    from: &Tensor<Vector<f32, V>>,
    to: &mut Tensor<Vector<E, V>>,
    vectors: usize,
    columns: usize,
    first: usize,
    width: usize,
    #[define(E)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        to[at / columns * width + first + at % columns] = Vector::cast_from(from[at]);
    }
}
