//! The journal: events with their times, one JSON object a line, append only.
//!
//! It is informative only: a kill right after an action loses its line. Each line carries a
//! checksum.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use serde::{Deserialize, Serialize};

use super::{Run, StoreError, checksum, files};
use crate::disk;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A node begins or resumes.
    Started,
    /// A part is on disk; for a training node, a checkpoint. Written by the store.
    PartCommitted,
    /// A node is finished.
    NodeDone,
    /// A node failed; `message` has the reason.
    NodeFailed,
    /// The user stopped the run.
    Interrupted,
    /// A node found a suitable server; `message` has the server's own description.
    ServerFound,
    /// A node asked a server; `message` has its address, and `detail` the numbers of its answers,
    /// failures and rests, and the seconds of its answers.
    ServerAsked,
    /// A replica of a node's model did its share; `message` has its name, and `detail` the numbers
    /// of its parts or examples, and its seconds.
    ReplicaUsed,
    /// A damaged file was found; `message` names it. Written by the store.
    Quarantined,
}

impl EventKind {
    /// The word for it in the journal.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Started => "started",
            EventKind::PartCommitted => "part_committed",
            EventKind::NodeDone => "node_done",
            EventKind::NodeFailed => "node_failed",
            EventKind::Interrupted => "interrupted",
            EventKind::ServerFound => "server_found",
            EventKind::ServerAsked => "server_asked",
            EventKind::ReplicaUsed => "replica_used",
            EventKind::Quarantined => "quarantined",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix time in milliseconds.
    pub at: i64,
    /// The kind of the event.
    pub event: EventKind,
    /// The node.
    pub node: String,
    /// The iteration, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// The part's number, or the step of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u64>,
    /// Rows written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The duration in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The part of these seconds that the node's models computed. Absent without a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_seconds: Option<f64>,
    /// Other numbers, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, f64>,
    /// A text, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// An event of this moment.
    pub fn new(event: EventKind, node: &str, iteration: Option<u32>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Milliseconds fit for 292 million years.
        let at = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let node = node.to_string();
        let detail = BTreeMap::new();
        Self { at, event, node, iteration, part: None, rows: None, seconds: None, device_seconds: None, detail, message: None }
    }
}

/// The journal of a run.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Run {
    /// The run's journal; its file need not exist.
    pub fn journal(&self) -> Journal {
        Journal { path: self.folder().join("journal.jsonl") }
    }
}

impl Journal {
    /// Every event so far. A last line without an end, left by a kill, is skipped.
    ///
    /// # Errors
    /// The file cannot be read, or another line is invalid.
    pub fn read(&self) -> Result<Vec<Event>, StoreError> {
        let bytes = files::read(&self.path)?.unwrap_or_default();
        let whole = bytes.get(..whole_lines(&bytes)).unwrap_or_default();
        let lines = whole.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        let events = lines
            .map(|(index, line)| event(line).map_err(|problem| StoreError::Journal { path: self.path.clone(), line: index + 1, problem }));
        events.collect()
    }

    /// Appends a line and flushes it to disk. After a failure the written bytes are removed again.
    pub(super) fn append(&self, event: &Event) -> Result<(), StoreError> {
        let failed = |source| StoreError::io("write", &self.path)(source);
        let line = serde_json::to_string(event).map_err(|error| failed(error.into()))?;
        let line = format!("{}\n", checksum::LINE.add(&line));
        let mut file = disk::File::open(&self.path).map_err(failed)?;
        let length = file.as_system().metadata().map_err(failed)?.len();
        if length == 0 {
            // The journal may be new.
            self.path.parent().map_or(Ok(()), files::sync_folder)?;
        }
        file.write_all(line.as_bytes()).and_then(|()| file.sync()).map_err(|error| {
            // Half a line would spoil the next one. If this fails too, the next process does it.
            file.cut(length).ok();
            failed(error)
        })
    }

    /// Cuts off a last line without an end. For a journal with invalid lines it changes nothing and
    /// returns the text of the valid lines, and a description of the first invalid one.
    pub(super) fn repair(&self) -> Result<Option<(String, String)>, StoreError> {
        let Some(bytes) = files::read(&self.path)? else { return Ok(None) };
        let whole = bytes.get(..whole_lines(&bytes)).unwrap_or_default();
        let mut valid = String::new();
        let mut found = None;
        for (index, line) in whole.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            match event(line) {
                // A valid event is valid UTF-8.
                Ok(_) => valid.extend([&String::from_utf8_lossy(line), "\n"]),
                Err(problem) => found = found.or(Some(format!("in line {}: {problem}", index + 1))),
            }
        }
        match found {
            Some(found) => Ok(Some((valid, found))),
            None if whole.len() == bytes.len() => Ok(None),
            None => {
                let file = disk::File::open(&self.path);
                let cut = file.and_then(|file| file.cut(whole.len() as u64).and_then(|()| file.sync()));
                cut.map(|()| None).map_err(StoreError::io("repair", &self.path))
            }
        }
    }

    /// The journal's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The events as a table: at, event, node, iteration, part, rows, seconds, device_seconds, message.
///
/// # Errors
/// A number is too large for its column.
pub(crate) fn batch(events: &[Event]) -> Result<RecordBatch, StoreError> {
    let too_large = |number: u64| StoreError::internal("journal::batch", format!("an event has the number {number}"));
    let integer = |value: Option<u64>| value.map(|value| i64::try_from(value).map_err(|_| too_large(value))).transpose();
    let iteration = |value: Option<u32>| value.map(|value| i32::try_from(value).map_err(|_| too_large(u64::from(value)))).transpose();
    let iterations: Int32Array = events.iter().map(|event| iteration(event.iteration)).collect::<Result<_, _>>()?;
    let parts: Int64Array = events.iter().map(|event| integer(event.part)).collect::<Result<_, _>>()?;
    let rows: Int64Array = events.iter().map(|event| integer(event.rows)).collect::<Result<_, _>>()?;
    let columns: [(&str, ArrayRef); 9] = [
        ("at", Arc::new(TimestampMillisecondArray::from_iter_values(events.iter().map(|event| event.at)))),
        ("event", Arc::new(StringArray::from_iter_values(events.iter().map(|event| event.event.name())))),
        ("node", Arc::new(StringArray::from_iter_values(events.iter().map(|event| &event.node)))),
        ("iteration", Arc::new(iterations)),
        ("part", Arc::new(parts)),
        ("rows", Arc::new(rows)),
        ("seconds", Arc::new(events.iter().map(|event| event.seconds).collect::<Float64Array>())),
        ("device_seconds", Arc::new(events.iter().map(|event| event.device_seconds).collect::<Float64Array>())),
        ("message", Arc::new(events.iter().map(|event| event.message.as_deref()).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(|error| StoreError::internal("journal::batch", error))
}

/// A line's event, or a description of the line.
fn event(line: &[u8]) -> Result<Event, String> {
    serde_json::from_str(&checksum::LINE.verify(line)?).map_err(|error| format!("something else ({error})"))
}

/// The length in bytes of all lines with an end.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}
