//! A run that goes on, for questions that come one after the other: what each one sees is whole, and as new as what is committed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Session;
use crate::store::{Run, StoreError};

/// A session over a run that is opened again when something was committed since.
pub struct LiveSession {
    run: Run,
    /// Files that are tables too, by name.
    files: Vec<(String, PathBuf)>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    /// The journal's length when the run was looked at: every commit makes it longer.
    journal: u64,
    session: Arc<Session>,
}

impl LiveSession {
    /// A run, with Parquet files as further tables. Nothing is opened yet.
    pub fn new(run: Run, files: Vec<(String, PathBuf)>) -> Self {
        Self { run, files, opened: Mutex::new(None) }
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The session over what is committed now. One that was given before goes on over what it was opened over.
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
