//! Sessions over an active run: each query sees the last committed state, as a whole.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Session;
use crate::store::{Run, StoreError};

/// A session over a run. It is opened again after each commit of the run.
pub struct LiveSession {
    run: Run,
    /// Further tables: names and Parquet files.
    files: Vec<(String, PathBuf)>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    /// The journal's length in bytes at the opening of the session. Every commit increases it.
    journal: u64,
    session: Arc<Session>,
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
        if let Some(opened) = opened.as_ref().filter(|opened| opened.journal == journal) {
            return Ok(opened.session.clone());
        }
        let session = Session::over_run(&self.run)?;
        self.files.iter().try_for_each(|(name, file)| session.register_files(name, &[(None, file.clone())]))?;
        let session = Arc::new(session);
        *opened = Some(Opened { journal, session: session.clone() });
        Ok(session)
    }
}
