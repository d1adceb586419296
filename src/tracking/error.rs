//! Errors of tracking.

use crate::remote::RemoteError;
use crate::store::StoreError;
use crate::tables::TableError;

/// Why something is not shown.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// A table or the journal cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table is not as it should be.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file cannot be written.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// A server cannot be told.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Looking at the tables broke down.
    #[error("internal error: {0}")]
    Internal(String),
}
