//! The progress of a run: each node with its parts, its time, and an estimate of the time left.
//!
//! From the pipeline, the manifests and the journal. Knows nothing of the work of a node.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::error::ViewError;
use super::lineage::State;
use super::viewed::Viewed;
use crate::report::Part;
use crate::store::{Event, EventKind, Manifest};

/// The progress of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// The run's name.
    pub name: String,
    /// `running`, `finished`, `failed`, `stopped`, or `unknown` where locks cannot be asked.
    pub state: &'static str,
    /// The length of the journal, to tell one state from another.
    pub version: u64,
    /// The number of iterations of the pipeline.
    pub iterations: u32,
    /// Finished outputs.
    pub done: u64,
    /// Outputs to expect.
    pub of: u64,
    /// An estimate of the seconds left, while the run goes on: of running nodes by their parts so
    /// far, of others by the iteration before.
    pub seconds_left: Option<f64>,
    /// Whether some nodes have no estimate yet, so that more time is left.
    pub at_least: bool,
    /// The nodes in the pipeline's order, one row an iteration.
    pub nodes: Vec<NodeProgress>,
}

/// A node in one iteration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeProgress {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: &'static str,
    /// The iteration.
    pub iteration: Option<u32>,
    /// `waiting`, `running`, `partial`, `done` or `failed`.
    pub state: &'static str,
    /// Committed parts, or finished outputs of a node with several.
    pub parts: u64,
    /// Parts in all, as far as they are known.
    pub part_count: u64,
    /// Rows so far.
    pub rows: u64,
    /// Seconds spent.
    pub seconds: f64,
    /// An estimate of the seconds left.
    pub seconds_left: Option<f64>,
    /// The last error, or nothing.
    pub message: Option<String>,
}

impl Viewed {
    /// The progress so far.
    ///
    /// # Errors
    /// The pipeline, a manifest or the journal cannot be read.
    pub fn progress(&self) -> Result<Progress, ViewError> {
        let state = self.state()?;
        let events = self.run().journal().read()?;
        let locked = self.run().is_locked();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        Ok(progress(self.run().name(), &state, &events, locked, now))
    }
}

/// The progress at the Unix time `now` in milliseconds.
fn progress(name: &str, state: &State, events: &[Event], locked: Option<bool>, now: i64) -> Progress {
    let outline = &state.outline;
    let mut nodes = Vec::new();
    let mut done = 0;
    let mut of = 0;
    // Seconds of a node in its last finished iteration.
    let mut last: BTreeMap<&str, f64> = BTreeMap::new();
    for iteration in std::iter::once(None).chain((1..=outline.iterations()).map(Some)) {
        for node in outline.nodes.iter().filter(|node| node.part != Part::Input && (node.part == Part::Loop) == iteration.is_some()) {
            let expected = node.outputs.iter().map(|output| {
                let found = state.outputs.iter().find(|(key, _)| key.name == *output && key.iteration == iteration);
                found.is_some_and(|(_, manifest)| manifest.complete)
            });
            let expected: Vec<bool> = expected.collect();
            let finished = expected.iter().filter(|complete| **complete).count() as u64;
            done += finished;
            of += expected.len() as u64;
            let is_own = |output: &str| outline.owner(output).is_some_and(|owner| owner.name == node.name);
            let own: Vec<&Event> = events.iter().filter(|event| event.iteration == iteration && is_own(&event.node)).collect();
            let manifests = state.outputs.iter().filter(|(key, _)| key.iteration == iteration && is_own(&key.name));
            let manifests: Vec<&Manifest> = manifests.map(|(_, manifest)| manifest).collect();
            let all = finished == expected.len() as u64;
            let task = Tasks { events: &own, manifests: &manifests, all, is_running: locked == Some(true), now };
            let mut row = task.progress(&node.name, node.operator, iteration);
            match row.state {
                "done" => {
                    last.insert(&node.name, row.seconds);
                }
                "running" if row.seconds_left.is_none() => {
                    row.seconds_left = last.get(node.name.as_str()).map(|whole| (whole - row.seconds).max(1.0))
                }
                "running" => {}
                _ if locked != Some(true) => {}
                _ => row.seconds_left = last.get(node.name.as_str()).copied(),
            }
            nodes.push(row);
        }
    }
    let left = || nodes.iter().filter(|node| node.state != "done");
    let is_running = locked == Some(true);
    let known: Vec<f64> = left().filter_map(|node| node.seconds_left).collect();
    let state_word = match locked {
        Some(true) => "running",
        _ if done == of => "finished",
        None => "unknown",
        _ if nodes.iter().any(|node| node.state == "failed") => "failed",
        _ => "stopped",
    };
    Progress {
        name: name.to_string(),
        state: state_word,
        version: state.version,
        iterations: outline.iterations(),
        done,
        of,
        seconds_left: (is_running && !known.is_empty()).then(|| known.iter().sum()),
        at_least: is_running && known.len() < left().count(),
        nodes,
    }
}

/// What is known of a node in one iteration: it may have several tasks.
struct Tasks<'a> {
    events: &'a [&'a Event],
    manifests: &'a [&'a Manifest],
    /// Whether all of its outputs are finished.
    all: bool,
    /// Whether the run goes on.
    is_running: bool,
    /// Unix time in milliseconds.
    now: i64,
}

impl Tasks<'_> {
    fn progress(&self, node: &str, operator: &'static str, iteration: Option<u32>) -> NodeProgress {
        let Self { events, manifests, all, is_running, now } = *self;
        let ended = |event: &&&Event| matches!(event.event, EventKind::NodeDone | EventKind::NodeFailed | EventKind::Interrupted);
        let mut seconds: f64 = events.iter().filter(ended).filter_map(|event| event.seconds).sum();
        // A node may have several tasks: those that began and did not end are running.
        let mut open: BTreeMap<&str, &Event> = BTreeMap::new();
        let mut failed: BTreeMap<&str, &Event> = BTreeMap::new();
        for event in events {
            match event.event {
                EventKind::Started => {
                    failed.remove(event.node.as_str());
                    open.insert(&event.node, event);
                }
                EventKind::NodeFailed => {
                    open.remove(event.node.as_str());
                    failed.insert(&event.node, event);
                }
                EventKind::NodeDone | EventKind::Interrupted => {
                    open.remove(event.node.as_str());
                }
                EventKind::PartCommitted | EventKind::ServerFound | EventKind::ServerAsked => {}
                EventKind::ReplicaUsed | EventKind::Quarantined => {}
            }
        }
        let mut seconds_left = None;
        if is_running {
            for (task, start) in &open {
                let elapsed = ((now - start.at).max(0)) as f64 / 1000.0;
                seconds += elapsed;
                let committed =
                    events.iter().filter(|event| event.event == EventKind::PartCommitted && event.node == *task && event.at >= start.at);
                let committed = committed.count() as f64;
                let manifest = manifests.iter().find(|manifest| manifest.node == *task && manifest.table.is_some() && !manifest.complete);
                let missing = manifest.map(|manifest| manifest.part_count.saturating_sub(manifest.parts.len() as u64));
                if let Some(missing) = missing.filter(|_| committed > 0.0) {
                    seconds_left = Some(seconds_left.unwrap_or(0.0) + (missing as f64 * elapsed / committed).max(1.0));
                }
            }
        }
        let parts: u64 = manifests.iter().map(|manifest| manifest.parts.len() as u64).sum();
        let state = match () {
            () if all => "done",
            () if is_running && !open.is_empty() => "running",
            () if !failed.is_empty() => "failed",
            () if parts > 0 => "partial",
            () => "waiting",
        };
        NodeProgress {
            node: node.to_string(),
            operator,
            iteration,
            state,
            parts,
            part_count: manifests.iter().map(|manifest| manifest.part_count).sum(),
            rows: manifests.iter().map(|manifest| manifest.rows()).sum(),
            seconds,
            seconds_left: if state == "running" { seconds_left } else { None },
            message: failed.values().next().filter(|_| state == "failed").and_then(|event| event.message.clone()),
        }
    }
}
