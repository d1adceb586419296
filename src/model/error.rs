//! Errors of models: unexpected files and inputs.

use std::io;
use std::path::{Path, PathBuf};

use crate::token_lists::TokenListsError;

/// An error of this module; its text names the file and, where there is one, the fix.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or folder could not be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("{}: cannot write: {source}{}", path.display(), crate::disk::way_on(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has unexpected content.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The expected and the found content.
        problem: String,
    },
    /// A text could not be tokenized, or token ids could not be turned into text.
    #[error("tokenizer: {0}")]
    Text(String),
    /// Messages could not be turned into text by the chat template.
    #[error("chat template: {0}")]
    Chat(String),
    /// The chat template does not take these messages, and says why.
    #[error("chat template: {0}")]
    Refused(String),
    /// A template of a text could not be compiled or filled in.
    #[error("template: {0}")]
    Template(String),
    /// Token ids are outside the vocabulary, or none were chosen.
    #[error("sequences: {0}")]
    Sequences(String),
    /// Token ids and their rows do not belong together.
    #[error(transparent)]
    TokenLists(#[from] TokenListsError),
    /// There is no number format of this name.
    #[error("dtype: {0}")]
    Dtype(String),
    /// The device asked for cannot be used.
    #[error("device: {0}")]
    Device(String),
}

impl ModelError {
    /// The file at `path` has unexpected content.
    pub(crate) fn invalid(path: &Path, problem: impl ToString) -> Self {
        Self::Invalid { path: path.to_path_buf(), problem: problem.to_string() }
    }
}
