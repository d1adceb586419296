//! Errors of an import, with the file and the line or row.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::store::StoreError;
use crate::tables::TableError;

/// An error of an import. Its text says what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The user's data is not what the pipeline needs.
    #[error("{0}")]
    Input(String),
    /// The contents of an external file are wrong.
    #[error("{}{}: {problem}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if it is known.
        line: Option<u64>,
        /// The problem: expected and found.
        problem: String,
    },
    /// The operating system cannot read an external file.
    #[error("cannot read {}: {source}{}", path.display(), disk::way_on(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The Parquet library cannot read an external file.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The library's error.
        source: ::parquet::errors::ParquetError,
    },
    /// A table breaks its rules.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The run folder cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Arrow refused an operation.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A state that cannot occur. It is a fault of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ImportError {
    /// Whether the user's input is to blame, and not this program or the machine. Every failure to
    /// read an external file is input.
    pub fn is_input(&self) -> bool {
        match self {
            ImportError::Input(_) | ImportError::File { .. } | ImportError::Io { .. } | ImportError::Parquet { .. } => true,
            ImportError::Store(error) => error.is_input(),
            ImportError::Table(_) | ImportError::Arrow(_) | ImportError::Internal(_) => false,
        }
    }

    /// A file is wrong as a whole, or at a place that `problem` names.
    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), line: None, problem: problem.into() }
    }

    /// For `map_err`: the system cannot read `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
