//! Errors of the store, with the path and, where possible, the remedy.

use std::io;
use std::path::PathBuf;

use super::{OutputKey, Quarantined};
use crate::dag::fingerprint::Fingerprint;
use crate::disk;
use crate::tables::TableError;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), disk::way_on(source))]
    Io {
        /// The attempted action, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The name of a run, node or file could lead out of its folder.
    #[error("{name:?} cannot be the name of a {what}: expected letters, digits, '_', '-' and '.', not first a '.'")]
    Name {
        /// `run`, `table`, `model` or `file`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Another process writes this run.
    #[error("run {run} is in use by {}; wait for it or stop it ({} is locked)", holder.map_or("another process".to_string(), |pid| format!("process {pid}")), path.display())]
    Locked {
        /// The run's name.
        run: String,
        /// The lock file.
        path: PathBuf,
        /// The process with the lock, if its file is readable.
        holder: Option<u32>,
    },
    /// A manifest cannot be read.
    #[error("{}: {problem}; run the pipeline again to set the folder aside and make it anew", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Expectation and finding.
        problem: String,
    },
    /// There is no such table or model.
    #[error("{key} is not there yet: expected {}", path.display())]
    Missing {
        /// The requested output.
        key: OutputKey,
        /// Its expected folder.
        path: PathBuf,
    },
    /// A table or model lacks parts.
    #[error("{key} is not finished: {done} of {of} parts are there; run the pipeline again to make the others")]
    Incomplete {
        /// The requested output.
        key: OutputKey,
        /// Parts present.
        done: u64,
        /// Parts in all.
        of: u64,
    },
    /// A settings file of a run was changed and cannot be derived again.
    #[error("{}: expected the file as it was written, found {found}; {way_on}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The finding.
        found: String,
        /// The remedy for the user.
        way_on: &'static str,
    },
    /// Files differ from their manifest; a reader leaves them in place.
    #[error("damaged files; run the pipeline again to set them aside and make them anew\n{}", listed(files))]
    Damaged {
        /// Each file, with expectation and finding.
        files: Vec<Quarantined>,
    },
    /// A committed part is outside the table's missing parts.
    #[error("{key}: expected one of the missing parts {missing:?}, found part {part}")]
    Part {
        /// The table.
        key: OutputKey,
        /// The part's number.
        part: usize,
        /// The parts still to be committed.
        missing: Vec<usize>,
    },
    /// One fingerprint names two outputs.
    #[error("fingerprint {} is the output {found} in the cache, expected {expected}: two outputs need two recipes", fingerprint.short())]
    TwoOutputs {
        /// The fingerprint.
        fingerprint: Fingerprint,
        /// The requested output.
        expected: String,
        /// The output in the cache.
        found: String,
    },
    /// A table's contents are wrong.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file, or the table's folder.
        path: PathBuf,
        /// The problem.
        source: TableError,
    },
    /// A Parquet file could not be read or written.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The error of the Parquet library.
        source: ::parquet::errors::ParquetError,
    },
    /// An external file could not be read.
    #[error("{}{}: {problem}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    Input {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if known.
        line: Option<u64>,
        /// The problem.
        problem: String,
    },
    /// A line of the journal is not an event.
    #[error("{}:{line}: expected an event, found {problem}; run the pipeline again to set the journal aside", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The finding.
        problem: String,
    },
    /// The SQL engine cannot read a file of a table.
    #[error("{message}")]
    Unreadable {
        /// The engine's message, with the file.
        message: String,
    },
    /// A query is wrong or failed.
    #[error("{message}")]
    Sql {
        /// The engine's message, without its internals.
        message: String,
    },
    /// An impossible state: an error in this program.
    #[error("internal error in {place}: {problem}; this is a bug in optune, please report it")]
    Internal {
        /// The function or module.
        place: &'static str,
        /// The state.
        problem: String,
    },
}

impl StoreError {
    /// Whether the user's input is the cause, rather than this program or the machine.
    pub fn is_input(&self) -> bool {
        match self {
            StoreError::Input { .. } | StoreError::Name { .. } | StoreError::Sql { .. } | StoreError::Missing { .. } => true,
            StoreError::Changed { .. } => true,
            StoreError::Parquet { .. } | StoreError::Table { .. } | StoreError::Locked { .. } | StoreError::Journal { .. } => false,
            StoreError::Io { .. } | StoreError::Manifest { .. } | StoreError::Incomplete { .. } | StoreError::Damaged { .. } => false,
            StoreError::Part { .. } | StoreError::Unreadable { .. } | StoreError::TwoOutputs { .. } => false,
            StoreError::Internal { .. } => false,
        }
    }

    /// For `map_err`: the system refused `action` on `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { action, path, source }
    }

    /// For impossible states: an error of this program at `place`.
    pub(crate) fn internal(place: &'static str, problem: impl ToString) -> StoreError {
        StoreError::Internal { place, problem: problem.to_string() }
    }

    /// Whether the system's reason is a missing file.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn listed(files: &[Quarantined]) -> String {
    files.iter().map(|file| format!("  {file}")).collect::<Vec<_>>().join("\n")
}
