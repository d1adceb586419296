//! A run as the page reads it: its committed state, and queries with a time limit.
//!
//! Knows no route. Never writes into the run, except for annotations.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ViewError;
use super::lineage::State;
use crate::report::{self, Outline};
use crate::sql::{LiveSession, Session};
use crate::store::{Annotations, Run, StoreError};

/// How long the page waits for the rows of a query.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run, live.
pub(super) struct Viewed {
    live: LiveSession,
    state: Mutex<Option<Arc<State>>>,
    /// The rewards of each prompt, by the table and iteration that they are from.
    summaries: Mutex<Vec<Summary>>,
    /// The sections of the report, at this version and while the run was going on or not.
    sections: Mutex<Option<(u64, bool, Arc<Value>)>>,
}

/// Rows that a query would make anew each time.
struct Summary {
    version: u64,
    name: String,
    rows: Vec<RecordBatch>,
}

/// The most summaries kept of a run.
const MOST_SUMMARIES: usize = 4;

/// A row as JSON: its columns with their values, null included.
pub(super) type Object = Map<String, Value>;

impl Viewed {
    /// A run. Reads nothing yet.
    pub fn new(run: Run) -> Self {
        Self { live: LiveSession::new(run, Vec::new()), state: Mutex::default(), summaries: Mutex::default(), sections: Mutex::default() }
    }

    /// The run.
    pub fn run(&self) -> &Run {
        self.live.run()
    }

    /// The run's annotations.
    pub fn annotations(&self) -> Annotations {
        self.run().annotations()
    }

    /// The length of the journal in bytes. Every commit increases it.
    pub fn version(&self) -> u64 {
        self.run().journal().path().metadata().map_or(0, |metadata| metadata.len())
    }

    /// The manifests and the pipeline as they are committed.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn state(&self) -> Result<Arc<State>, ViewError> {
        let version = self.version();
        let mut kept = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = kept.as_ref().filter(|state| state.version == version) {
            return Ok(state.clone());
        }
        let outputs = self.run().manifests()?;
        let outline = Outline::read(self.run(), &outputs)?;
        let state = Arc::new(State::new(version, outputs, outline));
        *kept = Some(state.clone());
        Ok(state)
    }

    /// A session over the committed tables.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn session(&self) -> Result<Arc<Session>, ViewError> {
        Ok(self.live.session()?)
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// The query is wrong, or takes too long.
    pub fn batches(&self, session: &Arc<Session>, query: &str) -> Result<Vec<RecordBatch>, ViewError> {
        let mut stream = session.stream(query, Vec::new())?;
        let handle = tokio::runtime::Handle::try_current().map_err(|error| ViewError::internal("view::batches", error))?;
        let collected = handle.block_on(tokio::time::timeout(PATIENCE, async {
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await {
                batches.push(batch?);
            }
            Ok::<_, StoreError>(batches)
        }));
        match collected {
            Err(_) => Err(ViewError::Late { seconds: PATIENCE.as_secs() }),
            // An active run has replaced a file: the session retries over the new ones.
            Ok(Err(StoreError::Unreadable { .. })) => Ok(session.query(query)?),
            Ok(batches) => Ok(batches?),
        }
    }

    /// The rows of a query as JSON.
    ///
    /// # Errors
    /// As for [`Self::batches`]; a column has no form in JSON.
    pub fn objects(&self, session: &Arc<Session>, query: &str) -> Result<Vec<Object>, ViewError> {
        self.rows(session, query)
    }

    /// The rows of a query as structures with the names of its columns.
    ///
    /// # Errors
    /// As for [`Self::objects`].
    pub fn rows<T: DeserializeOwned>(&self, session: &Arc<Session>, query: &str) -> Result<Vec<T>, ViewError> {
        let failed = |error: arrow::error::ArrowError| ViewError::Input(format!("a column cannot be shown: {error}"));
        let mut text = Vec::new();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
        for batch in self.batches(session, query)? {
            writer.write(&batch).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        drop(writer);
        let rows = serde_json::Deserializer::from_slice(&text).into_iter().collect::<Result<_, _>>();
        rows.map_err(|error| ViewError::internal("view::rows", error))
    }

    /// The single number of a query such as a count.
    ///
    /// # Errors
    /// As for [`Self::batches`].
    pub fn count(&self, session: &Arc<Session>, query: &str) -> Result<u64, ViewError> {
        let rows: Vec<Object> = self.rows(session, query)?;
        let number = rows.first().and_then(|row| row.values().next()).and_then(Value::as_u64);
        number.ok_or_else(|| ViewError::internal("view::count", format!("no number from {query}")))
    }

    /// Adds the rows of a query to the session as the table `name`. They stay in memory until the
    /// next commit.
    ///
    /// # Errors
    /// As for [`Self::batches`].
    pub fn keep(
        &self,
        session: &Arc<Session>,
        name: &str,
        rows: impl FnOnce() -> Result<Vec<RecordBatch>, ViewError>,
    ) -> Result<(), ViewError> {
        let has = |session: &Session| session.tables().iter().any(|table| table == name);
        if has(session) {
            return Ok(());
        }
        let version = self.version();
        let mut summaries = self.summaries.lock().unwrap_or_else(PoisonError::into_inner);
        summaries.retain(|summary| summary.version == version);
        let kept = match summaries.iter().find(|summary| summary.name == name) {
            Some(summary) => summary.rows.clone(),
            None => {
                let made = rows()?;
                if summaries.len() >= MOST_SUMMARIES {
                    summaries.remove(0);
                }
                summaries.push(Summary { version, name: name.to_string(), rows: made.clone() });
                made
            }
        };
        // The lock keeps other requests from adding it at the same time.
        if has(session) { Ok(()) } else { Ok(session.register_batches(name, kept)?) }
    }

    /// The sections of the run's report.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn sections(&self) -> Result<Arc<Value>, ViewError> {
        let version = self.version();
        let running = self.run().is_locked() == Some(true);
        let mut kept = self.sections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, sections)) = kept.as_ref().filter(|(of, then, _)| *of == version && *then == running) {
            return Ok(sections.clone());
        }
        let sections = serde_json::to_value(report::sections(self.run())?);
        let sections = Arc::new(sections.map_err(|error| ViewError::internal("view::sections", error))?);
        *kept = Some((version, running, sections.clone()));
        Ok(sections)
    }
}

/// A name in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
