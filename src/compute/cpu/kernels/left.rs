//! The left factor of a product, as it is given. Knows nothing of products.

/// The left factor of a product, `[rows, inner]`.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Row after row.
    Rows(&'a [f32]),
    /// Column after column: what is stored is the transpose, `[inner, rows]`, row after row.
    Columns(&'a [f32]),
}
