//! Matrices as products read them, and their products. Knows nothing of autodiff.

use std::ops::Range;

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, FloatDType, TensorMetadata};
use burn::tensor::{DType, Slice};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;
use cubek_matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek_matmul::launch::launch_ref;
use cubek_matmul::multi_level;
use cubek_matmul::strategy::Strategy;
use cubek_std::InputBinding;

use super::operation::{empty, handle};
use super::{BF16, F32};
use crate::compute::Precision;
use crate::compute::gpu::ROWS;
use crate::compute::gpu::kernels::{self, Cut, PLANES, TILE, UNITS};

/// So many planes keep a GPU busy.
const BUSY_PLANES: usize = 1024;

/// How many tiles of rows a batch has that products are shared out for, whatever it has: a row's
/// bits do not depend on what is beside it then.
const USUAL_ROWS: usize = 64;

/// A matrix as products read it.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    numbers: CubeTensor,
    rows: usize,
    columns: usize,
    pub(super) form: Form,
}

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In tiles of bf16, as our own product reads it (see
    /// [`tiles`](crate::compute::gpu::decoder::weights::tiles)), with zeros behind its rows up to a
    /// multiple of [`ROWS`].
    Tiles,
    /// Row by row, for products of cubek: of any sizes, and on any GPU.
    Rows(ElemType),
}

impl Form {
    /// Of matrices of these widths in products of this precision; f32 if the GPU has no bf16.
    pub(super) fn of(client: &Client, precision: Precision, widths: impl Iterator<Item = usize>) -> Self {
        match precision {
            Precision::Bf16 if have_tiles(client, widths) => Self::Tiles,
            Precision::Bf16 if client.properties().supports_type(BF16) => Self::Rows(BF16),
            _ => Self::Rows(F32),
        }
    }

    pub(super) fn in_tiles(self) -> bool {
        self == Self::Tiles
    }

    /// The element type of the numbers.
    fn element(self) -> ElemType {
        match self {
            Self::Tiles => BF16,
            Self::Rows(element) => element,
        }
    }
}

/// A matrix in a product.
#[derive(Clone, Debug)]
pub(super) struct Factor<'a> {
    matrix: &'a Matrix,
    transposed: bool,
    columns: Range<usize>,
}

/// Whether matrices of these widths, and products of them, can be in tiles.
fn have_tiles(client: &Client, mut widths: impl Iterator<Item = usize>) -> bool {
    let mut known = client.properties().features.matmul.cmma.iter();
    known.any(|config| config.a_type == BF16 && config.b_type == BF16 && [config.m, config.n, config.k] == [TILE as u32; 3])
        && widths.all(|width| width.is_multiple_of(TILE))
}

impl Matrix {
    /// `[rows, columns of all]`: f32 matrices of as many rows, at least one, beside each other.
    pub(super) fn new(parts: &[CubeTensor], form: Form) -> Self {
        let first = &parts[0];
        let client = &first.client;
        let (rows, columns) = (first.shape()[0], parts.iter().map(|part| part.shape()[1]).sum());
        let matrix = Self::empty([rows, columns], form, first);
        let (numbers, all_rows) = matrix.memory();
        let mut before = 0;
        for part in parts {
            let part = into_contiguous(part.clone());
            let of_part = part.shape()[1];
            // Rows begin and end with whole vectors.
            let fits = |vector: &usize| [columns, of_part, before].iter().all(|number| number.is_multiple_of(*vector));
            let vector = [4, 2].into_iter().find(fits).unwrap_or(1);
            kernels::put_columns::launch(
                client,
                CubeCount::Static((all_rows * of_part / vector).div_ceil(UNITS) as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                vector,
                handle(&part).into_arg(),
                handle(numbers).into_arg(),
                rows * of_part / vector,
                of_part / vector,
                before / vector,
                columns / vector,
                all_rows,
                vector,
                form.in_tiles(),
                form.element(),
            );
            before += of_part;
        }
        matrix
    }

    /// Memory for a matrix, on the GPU where `beside` is.
    pub(super) fn empty([rows, columns]: [usize; 2], form: Form, beside: &CubeTensor) -> Self {
        let dtype = if form.element() == BF16 { FloatDType::BF16 } else { FloatDType::F32 };
        let all_rows = if form.in_tiles() { rows.next_multiple_of(ROWS) } else { rows };
        Self { numbers: Cube::float_empty([all_rows, columns].into(), &beside.device, dtype), rows, columns, form }
    }

    /// Its memory, and for how many rows that is: those past the matrix's must be 0.
    pub(super) fn memory(&self) -> (&CubeTensor, usize) {
        (&self.numbers, self.numbers.shape()[0])
    }

    pub(super) fn element(&self) -> ElemType {
        self.form.element()
    }

    /// The matrix itself.
    pub(super) fn plain(&self) -> Factor<'_> {
        Factor { matrix: self, transposed: false, columns: 0..self.columns }
    }

    /// Its transpose.
    pub(super) fn transposed(&self) -> Factor<'_> {
        Factor { transposed: true, ..self.plain() }
    }

    /// Some of its columns.
    pub(super) fn columns(&self, columns: Range<usize>) -> Factor<'_> {
        Factor { columns, ..self.plain() }
    }
}

impl Factor<'_> {
    /// `[rows, columns]`.
    fn dims(&self) -> [usize; 2] {
        if self.transposed { [self.columns.len(), self.matrix.rows] } else { [self.matrix.rows, self.columns.len()] }
    }

    /// The product of two factors, both in tiles or both not; f32.
    pub(super) fn product(&self, right: &Factor<'_>) -> CubeTensor {
        if self.matrix.form.in_tiles() { self.product_of_tiles(right) } else { multiply(self.view(), right.view()) }
    }

    fn view(&self) -> CubeTensor {
        let Matrix { numbers, columns, .. } = self.matrix;
        let part = match self.columns.len() < *columns {
            true => Cube::float_slice(numbers.clone(), &[Slice::full(), Slice::from(self.columns.clone())]),
            false => numbers.clone(),
        };
        if self.transposed { Cube::float_transpose(part) } else { part }
    }

    /// How many tiles lie before its first, and between one and the next of its rows and of its
    /// columns.
    fn strides(&self) -> [usize; 3] {
        let across = self.matrix.columns / TILE;
        let [row, column] = if self.transposed { [1, across] } else { [across, 1] };
        [self.columns.start / TILE, row, column]
    }

    fn product_of_tiles(&self, right: &Factor<'_>) -> CubeTensor {
        let ([rows, inner], [_, columns]) = (self.dims(), right.dims());
        // Zeros follow the rows of what is given, which are the inner ones of its transpose.
        let tiles = |numbers: usize, is_padded: bool| if is_padded { numbers.next_multiple_of(ROWS) / TILE } else { numbers / TILE };
        let (row_tiles, inner_tiles, column_tiles) = (tiles(rows, !self.transposed), tiles(inner, self.transposed), columns / TILE);
        let usual_rows = if self.transposed { row_tiles } else { USUAL_ROWS };
        let cut =
            Cut { left_transposed: self.transposed, right_transposed: right.transposed, ..cut(usual_rows, inner_tiles, column_tiles) };
        let [planes_down, planes_across, _] = cut.planes;
        let cubes_down = row_tiles.div_ceil(cut.rows * planes_down);
        let cubes_across = column_tiles.div_ceil(cut.columns * planes_across);
        let [left_first, left_row, left_inner] = self.strides();
        let [right_first, right_inner, right_column] = right.strides();
        let (left, right) = (&self.matrix.numbers, &right.matrix.numbers);
        let all = empty([row_tiles * TILE, columns], left);
        kernels::product_of_tiles::launch(
            &left.client,
            CubeCount::Static(cubes_down as u32, cubes_across as u32, 1),
            CubeDim::new_2d(32, PLANES as u32),
            left.clone().into_buffer_arg(),
            right.clone().into_buffer_arg(),
            all.clone().into_buffer_arg(),
            row_tiles,
            inner_tiles,
            column_tiles,
            left_first,
            left_row,
            left_inner,
            right_first,
            right_inner,
            right_column,
            cut,
            BF16,
        );
        CubeTensor::new_contiguous(all.client, all.device, [rows, columns].into(), all.handle, all.dtype)
    }
}

/// Shares a product of so many tiles out, so that a GPU has enough to do.
fn cut(rows: usize, inner: usize, columns: usize) -> Cut {
    let of = |tiles: usize| [4, 3, 2].into_iter().find(|of_plane| tiles.is_multiple_of(*of_plane)).unwrap_or(1);
    let (of_rows, of_columns) = (of(rows), of(columns));
    let blocks = (rows / of_rows) * (columns / of_columns);
    // Planes beside each other read the same tiles at the same time, from the nearest cache.
    let planes = match BUSY_PLANES.div_ceil(blocks) {
        0 | 1 => [2, 4, 1],
        2 => [2, 2, 2],
        3 | 4 => [1, 2, 4],
        _ => [1, 1, PLANES],
    };
    // All tiles of a plane at once are few enough for its registers.
    let together = if inner.is_multiple_of(2 * planes[2]) { 2 } else { 1 };
    Cut { rows: of_rows, columns: of_columns, together, planes, left_transposed: false, right_transposed: false }
}

/// The product of two matrices of one element type, in f32.
fn multiply(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    if left.dtype == DType::BF16 {
        let out = empty([left.shape()[0], right.shape()[1]], &left);
        let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: BF16, rhs: BF16, out: F32 });
        let [first, second] = [&left, &right].map(|tensor| InputBinding::new(tensor.clone().binding(), BF16));
        let strategy = Strategy::MultiLevel(multi_level::Strategy::DoubleCyclicMma(Default::default()));
        // Some shapes and GPUs are not supported.
        if launch_ref(&strategy, &out.client, first, second, out.clone().binding(), &mut elements).is_ok() {
            return out;
        }
    }
    Cube::float_cast(Cube::float_matmul(left, right), FloatDType::F32)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::compute::DeviceChoice;
    use crate::compute::gpu::decoder::weights::tiles;

    fn numbers(rows: usize, columns: usize, seed: usize) -> Vec<f32> {
        // With few enough digits for bf16.
        (0..rows * columns).map(|at| ((at * 7 + seed * 13 + at / columns * 5) % 31) as f32 - 15.0).collect()
    }

    fn on_gpu(values: &[f32], shape: [usize; 2]) -> CubeTensor {
        let tensor = Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &DeviceChoice::Cuda.resolve().unwrap());
        tensor.try_into_primitive::<Cube>().unwrap()
    }

    fn values(tensor: CubeTensor) -> Vec<f32> {
        Tensor::<2>::from_primitive::<Cube>(Cube::float_cast(tensor, FloatDType::F32)).into_data().iter().collect()
    }

    #[test]
    fn matrices_beside_each_other_are_put_into_tiles_with_zeros_behind() {
        let (first, second) = (numbers(70, 48, 1), numbers(70, 16, 2));
        let matrix = Matrix::new(&[on_gpu(&first, [70, 48]), on_gpu(&second, [70, 16])], Form::Tiles);
        let rows = first.chunks(48).zip(second.chunks(16)).flat_map(|(first, second)| [first, second].concat());
        let whole: Vec<f32> = rows.chain([0.0; (128 - 70) * 64]).collect();
        assert_eq!(values(matrix.numbers), tiles(&whole, 64));
    }

    #[test]
    fn products_are_right_whichever_factor_is_transposed() {
        let client = on_gpu(&[0.0], [1, 1]).client;
        let shapes = [[5, 32, 48], [130, 64, 80], [64, 1040, 16], [7, 9, 11], [640, 96, 1024]];
        let cases = [Precision::F32, Precision::Bf16].into_iter().flat_map(|precision| shapes.map(|shape| (precision, shape)));
        for (precision, [rows, inner, columns]) in cases {
            let form = Form::of(&client, precision, [inner, columns].into_iter());
            let (left, right, by) = (numbers(rows, inner, 1), numbers(inner, columns, 2), numbers(rows, columns, 3));
            let of = |values: &[f32], shape: [usize; 2]| Matrix::new(&[on_gpu(values, shape)], form);
            let (x, weight, gradient) = (of(&left, [rows, inner]), of(&right, [inner, columns]), of(&by, [rows, columns]));
            let sum = |count: usize, term: &dyn Fn(usize) -> f32| (0..count).map(term).sum::<f32>();
            let each = |height: usize, width: usize, entry: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
                (0..height * width).map(|at| entry(at / width, at % width)).collect()
            };
            let expected = each(rows, columns, &|row, column| sum(inner, &|at| left[row * inner + at] * right[at * columns + column]));
            assert_eq!(values(x.plain().product(&weight.plain())), expected, "{rows}, {inner}, {columns}");
            let expected = each(rows, inner, &|row, at| sum(columns, &|column| by[row * columns + column] * right[at * columns + column]));
            assert_eq!(values(gradient.plain().product(&weight.transposed())), expected, "{rows}, {inner}, {columns}: to the left");
            let part = columns / 2 / TILE * TILE..columns;
            let expected =
                each(inner, part.len(), &|at, column| sum(rows, &|row| left[row * inner + at] * by[row * columns + part.start + column]));
            assert_eq!(
                values(x.transposed().product(&gradient.columns(part.clone()))),
                expected,
                "{rows}, {inner}, {columns}: to the right"
            );
        }
    }
}
