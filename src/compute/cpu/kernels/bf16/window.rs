//! Parts of a matrix for several threads. Knows nothing of their numbers.

use std::marker::PhantomData;

/// Some columns of some rows of a matrix, for nobody else.
#[derive(Debug)]
pub(super) struct Window<'a> {
    first: *mut f32,
    /// Numbers from a row to the next one.
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: as a `&mut [f32]`, it is the only way to its numbers.
#[allow(unsafe_code)]
unsafe impl Send for Window<'_> {}

impl<'a> Window<'a> {
    /// All of a matrix of so many columns, row after row.
    pub(super) fn new(matrix: &'a mut [f32], columns: usize) -> Self {
        let rows = matrix.len().checked_div(columns).unwrap_or(0);
        Self { first: matrix.as_mut_ptr(), stride: columns, rows, columns, matrix: PhantomData }
    }

    /// The rows before a row, and those from it on.
    pub(super) fn split_rows(self, row: usize) -> [Self; 2] {
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        let after = Self { first: self.first.wrapping_add(row * self.stride), rows: self.rows - row, ..self };
        [Self { rows: row, ..self }, after]
    }

    /// The columns before a column, and those from it on.
    pub(super) fn split_columns(self, column: usize) -> [Self; 2] {
        assert!(column <= self.columns, "column {column} of {}", self.columns);
        let after = Self { first: self.first.wrapping_add(column), columns: self.columns - column, ..self };
        [Self { columns: column, ..self }, after]
    }

    /// As many columns as there are, at most the given, and the rest.
    pub(super) fn split_columns_at_most(self, columns: usize) -> [Self; 2] {
        let columns = columns.min(self.columns);
        self.split_columns(columns)
    }

    /// The window itself, for a while.
    pub(super) fn borrowed(&mut self) -> Window<'_> {
        Window { ..*self }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The columns of a row.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row is one of the matrix, and the columns are within it.
        unsafe { std::slice::from_raw_parts_mut(self.first.wrapping_add(row * self.stride), self.columns) }
    }

    /// The first of `size` × `size` numbers, and the bytes from a row of them to the next one; only
    /// if the window has all of them.
    #[inline(always)]
    pub(super) fn square(&mut self, row: usize, column: usize, size: usize) -> Option<(*mut f32, usize)> {
        let inside = row + size <= self.rows && column + size <= self.columns;
        inside.then(|| (self.first.wrapping_add(row * self.stride + column), self.stride * size_of::<f32>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_share_a_matrix_without_overlap() {
        let mut matrix = vec![0.0; 5 * 7];
        let [top, bottom] = Window::new(&mut matrix, 7).split_rows(2);
        let windows = [top.split_columns(3), bottom.split_columns(6)].into_iter().flatten();
        for (number, mut window) in windows.enumerate() {
            let columns = window.columns();
            for row in 0..window.rows() {
                assert_eq!(window.row(row).len(), columns);
                window.row(row).iter_mut().for_each(|value| *value += (number + 1) as f32);
            }
        }
        let expected = |row: usize, column: usize| match (row < 2, column) {
            (true, column) => {
                if column < 3 {
                    1.0
                } else {
                    2.0
                }
            }
            (false, column) => {
                if column < 6 {
                    3.0
                } else {
                    4.0
                }
            }
        };
        assert!(matrix.iter().enumerate().all(|(at, value)| *value == expected(at / 7, at % 7)));
    }
}
