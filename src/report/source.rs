//! An opened run: its tables in SQL, its manifests and journal, and its pipeline.

use std::collections::BTreeMap;
use std::ops::Deref;

use arrow::json::LineDelimitedWriter;
use serde::de::DeserializeOwned;

use super::error::ReportError;
use super::outline::{Expected, Outline};
use crate::sql::Session;
use crate::store::{Event, EventKind, Manifest, OutputKey, OutputKind, Run};
use crate::tables::TableKind;

/// A run as far as it is committed.
pub struct Source {
    /// The run.
    pub run: Run,
    /// Its pipeline.
    pub outline: Outline,
    /// Every output with a manifest.
    pub outputs: Vec<(OutputKey, Manifest)>,
    /// Its journal.
    pub events: Vec<Event>,
    /// Whether a process writes it now.
    pub running: bool,
    session: Session,
}

impl Deref for Source {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        &self.outline
    }
}

impl Source {
    /// Opens a run.
    ///
    /// # Errors
    /// Its pipeline, a manifest or the journal cannot be read, or a part differs from its manifest.
    pub fn open(run: &Run) -> Result<Self, ReportError> {
        let outputs = run.manifests()?;
        let outline = Outline::read(run, &outputs)?;
        let session = Session::over_run(run)?;
        Ok(Self { outline, outputs, events: run.journal().read()?, running: run.is_locked() == Some(true), session, run: run.clone() })
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        self.run.name()
    }

    /// The rows of a query, as structures with the names of its columns.
    ///
    /// # Errors
    /// The query fails, or its rows are others.
    pub fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, ReportError> {
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        for batch in self.session.query(sql)? {
            writer.write(&batch).map_err(|error| form("rows", error))?;
        }
        writer.finish().map_err(|error| form("rows", error))?;
        serde_json::Deserializer::from_slice(&text).into_iter().collect::<Result<_, _>>().map_err(|error| form("rows", error))
    }

    /// The session, to add tables to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The columns of a table; none if it is not there yet.
    pub fn columns(&self, table: &str) -> Vec<String> {
        let schema = self.session.schema_of(&format!("SELECT * FROM {}", quoted(table)));
        schema.map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect()).unwrap_or_default()
    }

    /// Whether anything of a table is committed.
    pub fn has(&self, table: &str) -> bool {
        self.outputs.iter().any(|(place, manifest)| place.kind == OutputKind::Table && place.name == table && manifest.rows() > 0)
    }

    /// The non-empty tables of a kind, by name, in the order of the pipeline's nodes.
    pub fn tables(&self, kind: TableKind) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (place, manifest) in &self.outputs {
            if manifest.table == Some(kind) && manifest.rows() > 0 && names.last() != Some(&place.name.as_str()) {
                names.push(&place.name);
            }
        }
        let rank = |name: &&str| self.owner(name).and_then(|owner| self.nodes.iter().position(|node| node.name == owner.name));
        names.sort_by_key(rank);
        names
    }

    /// An expression for a table's iteration: 0 where it is made once.
    pub fn iteration_of(&self, table: &str) -> &'static str {
        let iterated = self.outputs.iter().any(|(place, _)| place.name == table && place.iteration.is_some());
        if iterated { "CAST(iteration AS BIGINT)" } else { "CAST(0 AS BIGINT)" }
    }

    /// Seconds spent on an output in this run, over all calls; a killed one leaves no trace. `None`
    /// if it was never begun here.
    pub fn seconds(&self, place: &OutputKey) -> Option<f64> {
        let mut seconds = self.events.iter().filter(|event| is_of(event, place) && ended(event)).filter_map(|event| event.seconds);
        let first = seconds.next()?;
        Some(first + seconds.sum::<f64>())
    }

    /// Whether one of the store's views is there: its tables are, and no table of the user's own
    /// has its name.
    pub fn has_view(&self, view: &str) -> bool {
        self.session.tables().iter().any(|name| name == view) && !self.outputs.iter().any(|(place, _)| place.name == view)
    }

    /// The nodes' incomplete outputs, as `name` or `name[2]`, with the parts that are there.
    pub fn missing(&self) -> Vec<String> {
        let there: BTreeMap<(&str, Option<u32>), &Manifest> =
            self.outputs.iter().map(|(place, manifest)| ((place.name.as_str(), place.iteration), manifest)).collect();
        let mut missing = Vec::new();
        for node in &self.nodes {
            for Expected { output, iteration } in Outline::expected(node) {
                let manifest = there.get(&(output, iteration));
                if manifest.is_some_and(|manifest| manifest.complete) {
                    continue;
                }
                let name = iteration.map_or(output.to_string(), |iteration| format!("{output}[{iteration}]"));
                missing.push(match manifest.map(|manifest| (manifest.parts.len(), manifest.part_count)) {
                    Some((some, of)) if some > 0 => format!("{name} ({some} of {of} parts)"),
                    _ => name,
                });
            }
        }
        missing
    }
}

/// An error about the form of something.
pub fn form(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> ReportError {
    ReportError::Form { what: what.to_string(), problem: problem.to_string() }
}

/// A table's name in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_of(event: &Event, place: &OutputKey) -> bool {
    event.node == place.name && event.iteration == place.iteration
}

fn ended(event: &Event) -> bool {
    matches!(event.event, EventKind::NodeDone | EventKind::NodeFailed | EventKind::Interrupted)
}
