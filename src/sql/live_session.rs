//! Sessions over an active run: each query sees the last committed state, as a whole.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::Session;
use crate::store::{Run, StoreError};

/// A session over a run. It is opened again after each commit of the run, and after each change of
/// its annotations.
pub struct LiveSession {
    run: Run,
    /// Further tables: names and Parquet files.
    files: Vec<(String, PathBuf)>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    version: Version,
    session: Arc<Session>,
}

/// The state of a run at the opening of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    /// The journal's length in bytes. Every commit increases it.
    journal: u64,
    annotations: Option<(u64, SystemTime)>,
}

impl LiveSession {
    /// For a run, with Parquet files as further tables. Opens nothing yet.
    pub fn new(run: Run, files: Vec<(String, PathBuf)>) -> Self {
        Self { run, files, opened: Mutex::new(None) }
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// A session over the committed state. Earlier sessions continue over their own state.
    ///
    /// # Errors
    /// As for [`Session::over_run`] and [`Session::register_files`].
    pub fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let journal = self.run.journal().path().metadata().map_or(0, |metadata| metadata.len());
        let version = Version { journal, annotations: self.run.annotations().version() };
        if let Some(opened) = opened.as_ref().filter(|opened| opened.version == version) {
            return Ok(opened.session.clone());
        }
        let session = Session::over_run(&self.run)?;
        self.files.iter().try_for_each(|(name, file)| session.register_files(name, &[(None, file.clone())]))?;
        let session = Arc::new(session);
        *opened = Some(Opened { version, session: session.clone() });
        Ok(session)
    }
}
