//! What can go wrong in the store, with the path and, where there is one, the way out.

use std::io;
use std::path::PathBuf;

use super::{OutputKey, Quarantined};
use crate::dag::fingerprint::Fingerprint;
use crate::disk;
use crate::tables::TableError;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), disk::way_on(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
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
        /// The process that has the lock, if its file says.
        holder: Option<u32>,
    },
    /// A manifest cannot be read.
    #[error("{}: {problem}; run the pipeline again to set the folder aside and make it anew", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// There is no such table or model.
    #[error("{place} is not there yet: expected {}", path.display())]
    Missing {
        /// What was asked for.
        place: OutputKey,
        /// Where it would be.
        path: PathBuf,
    },
    /// A table or model lacks parts.
    #[error("{place} is not finished: {done} of {of} parts are there; run the pipeline again to make the others")]
    Incomplete {
        /// What was asked for.
        place: OutputKey,
        /// Parts that are there.
        done: u64,
        /// Parts that there should be.
        of: u64,
    },
    /// A file that a run goes by, and that cannot be made anew, was changed.
    #[error("{}: expected the file as it was written, found {found}; {way_on}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What the user can do.
        way_on: &'static str,
    },
    /// Files are not what their manifest says; a reader leaves them where they are.
    #[error("damaged files; run the pipeline again to set them aside and make them anew\n{}", listed(files))]
    Damaged {
        /// Each file, with what was expected and found.
        files: Vec<Quarantined>,
    },
    /// A part was committed that the table cannot have, or has already.
    #[error("{place}: expected one of the missing parts {missing:?}, found part {part}")]
    Part {
        /// The table.
        place: OutputKey,
        /// The part's number.
        part: usize,
        /// The parts that are still to be committed.
        missing: Vec<usize>,
    },
    /// One fingerprint names two outputs.
    #[error("fingerprint {} is the output {found} in the cache, expected {expected}: two outputs need two recipes", fingerprint.short())]
    TwoOutputs {
        /// The fingerprint.
        fingerprint: Fingerprint,
        /// What was asked for.
        expected: String,
        /// What the cache has.
        found: String,
    },
    /// A table's contents are wrong.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file, or the table's folder.
        path: PathBuf,
        /// What is wrong.
        source: TableError,
    },
    /// A Parquet file could not be read or written.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the Parquet library says.
        source: ::parquet::errors::ParquetError,
    },
    /// A file from outside could not be read.
    #[error("{}{}: {problem}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    Input {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where it is known.
        line: Option<u64>,
        /// What is wrong.
        problem: String,
    },
    /// A line of the journal is not an event.
    #[error("{}:{line}: expected an event, found {problem}; run the pipeline again to set the journal aside", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found.
        problem: String,
    },
    /// A file of a table cannot be read, says the SQL engine.
    #[error("{message}")]
    Unreadable {
        /// What it says, with the file.
        message: String,
    },
    /// A query is wrong or failed.
    #[error("{message}")]
    Sql {
        /// What the SQL engine says, without its internals.
        message: String,
    },
}

impl StoreError {
    /// Whether the user's input is to blame, and not this program or the machine.
    pub fn is_input(&self) -> bool {
        match self {
            StoreError::Input { .. } | StoreError::Name { .. } | StoreError::Sql { .. } | StoreError::Missing { .. } => true,
            StoreError::Changed { .. } => true,
            StoreError::Parquet { .. } | StoreError::Table { .. } | StoreError::Locked { .. } | StoreError::Journal { .. } => false,
            StoreError::Io { .. } | StoreError::Manifest { .. } | StoreError::Incomplete { .. } | StoreError::Damaged { .. } => false,
            StoreError::Part { .. } | StoreError::Unreadable { .. } | StoreError::TwoOutputs { .. } => false,
        }
    }

    /// For `map_err`: the system refused to do `action` on `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { action, path, source }
    }

    /// Whether the system's reason is that there is no such file.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn listed(files: &[Quarantined]) -> String {
    files.iter().map(|file| format!("  {file}")).collect::<Vec<_>>().join("\n")
}
