//! The journal: what happened when, one JSON object a line, append only.
//!
//! It informs and decides nothing: a line may be missing when the process was killed right after the deed. Each line is sealed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use serde::{Deserialize, Serialize};

use super::{Run, StoreError, checksum, files};
use crate::disk;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A node was begun or resumed.
    Started,
    /// A part is on disk; of a training node, a checkpoint. Written by the store.
    PartCommitted,
    /// A node is finished.
    NodeDone,
    /// A node failed; `message` says why.
    NodeFailed,
    /// The user stopped the run.
    Interrupted,
    /// A server was found that serves what a node asks for; `message` has what it says of itself.
    ServerFound,
    /// A file was not what its manifest says; `message` says which. Written by the store.
    Quarantined,
}

impl EventKind {
    /// The word in the journal.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Started => "started",
            EventKind::PartCommitted => "part_committed",
            EventKind::NodeDone => "node_done",
            EventKind::NodeFailed => "node_failed",
            EventKind::Interrupted => "interrupted",
            EventKind::ServerFound => "server_found",
            EventKind::Quarantined => "quarantined",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix time in milliseconds.
    pub at: i64,
    /// What happened.
    pub event: EventKind,
    /// To which node.
    pub node: String,
    /// In which iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// The part's number, or the step of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u64>,
    /// Rows written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Other numbers, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, f64>,
    /// Words, where numbers do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// The event, now.
    pub fn new(event: EventKind, node: &str, iteration: Option<u32>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let node = node.to_string();
        Self { at, event, node, iteration, part: None, rows: None, seconds: None, detail: BTreeMap::new(), message: None }
    }
}

/// The journal of a run.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Run {
    /// The run's journal, whether it exists or not.
    pub fn journal(&self) -> Journal {
        Journal { path: self.folder().join("journal.jsonl") }
    }
}

impl Journal {
    /// Every event so far. A last line without an end was being written when the process was killed: it is left out.
    ///
    /// # Errors
    /// The file cannot be read, or another line is not an event as it was written.
    pub fn read(&self) -> Result<Vec<Event>, StoreError> {
        let bytes = files::read(&self.path)?.unwrap_or_default();
        let whole = bytes.get(..whole_lines(&bytes)).unwrap_or_default();
        let lines = whole.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        let events = lines
            .map(|(index, line)| event(line).map_err(|problem| StoreError::Journal { path: self.path.clone(), line: index + 1, problem }));
        events.collect()
    }

    /// Adds a line; on disk when this returns. Where that fails, what was written of it is taken back.
    pub(super) fn append(&self, event: &Event) -> Result<(), StoreError> {
        let failed = |source| StoreError::io("write", &self.path)(source);
        let line = serde_json::to_string(event).map_err(|error| failed(error.into()))?;
        let line = format!("{}\n", checksum::LINE.seal(&line));
        let mut file = disk::File::open(&self.path).map_err(failed)?;
        let length = file.as_system().metadata().map_err(failed)?.len();
        if length == 0 {
            // The journal may be new.
            self.path.parent().map_or(Ok(()), files::sync_folder)?;
        }
        file.write_all(line.as_bytes()).and_then(|()| file.sync()).map_err(|error| {
            // Half a line would spoil the next one. If not even this can be done, the next process does it.
            file.cut(length).ok();
            failed(error)
        })
    }

    /// Cuts off a last line that has no end. Of a journal with other lines than events: the text without them, and where the first was.
    pub(super) fn repair(&self) -> Result<Option<(String, String)>, StoreError> {
        let Some(bytes) = files::read(&self.path)? else { return Ok(None) };
        let whole = bytes.get(..whole_lines(&bytes)).unwrap_or_default();
        let (mut kept, mut found) = (String::new(), None);
        for (index, line) in whole.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            match event(line) {
                // An event is text.
                Ok(_) => kept.extend([&String::from_utf8_lossy(line), "\n"]),
                Err(problem) => found = found.or(Some(format!("in line {}: {problem}", index + 1))),
            }
        }
        match found {
            Some(found) => Ok(Some((kept, found))),
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

/// The events as a table: at, event, node, iteration, part, rows, seconds, message.
pub(crate) fn batch(events: &[Event]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let integer = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    let columns: [(&str, ArrayRef); 8] = [
        ("at", Arc::new(TimestampMillisecondArray::from_iter_values(events.iter().map(|event| event.at)))),
        ("event", Arc::new(StringArray::from_iter_values(events.iter().map(|event| event.event.name())))),
        ("node", Arc::new(StringArray::from_iter_values(events.iter().map(|event| &event.node)))),
        (
            "iteration",
            Arc::new(events.iter().map(|event| event.iteration.and_then(|value| i32::try_from(value).ok())).collect::<Int32Array>()),
        ),
        ("part", Arc::new(events.iter().map(|event| integer(event.part)).collect::<Int64Array>())),
        ("rows", Arc::new(events.iter().map(|event| integer(event.rows)).collect::<Int64Array>())),
        ("seconds", Arc::new(events.iter().map(|event| event.seconds).collect::<Float64Array>())),
        ("message", Arc::new(events.iter().map(|event| event.message.as_deref()).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
}

/// A line's event, or what was found in its place.
fn event(line: &[u8]) -> Result<Event, String> {
    serde_json::from_str(&checksum::LINE.open(line)?).map_err(|error| format!("something else ({error})"))
}

/// How many bytes belong to lines with an end.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}
