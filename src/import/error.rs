//! What can go wrong while a table is imported.

use crate::store::StoreError;
use crate::tables::TableError;

/// An error of an import. Its text says what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The user's data cannot be read as the pipeline needs it.
    #[error("{0}")]
    Input(String),
    /// A table breaks its rules.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Arrow refused an operation.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}
