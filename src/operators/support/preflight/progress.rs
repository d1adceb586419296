//! A check of a graph in progress.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::compute::DeviceChoice;
use crate::model::Checkpoint;
use crate::pipeline::graph::{Graph, Process};
use crate::pipeline::spec::input::DatasetFormat;

/// The dataset formats of outside tables of prompts and preferences, by the tables' names.
pub type DatasetFormats = BTreeMap<String, DatasetFormat>;

/// The results of a check, for people.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The dataset formats of the outside tables.
    pub dataset_formats: DatasetFormats,
    /// What the user should know: the name of a table or node, with the note.
    pub notes: Vec<(String, String)>,
}

impl Checked {
    /// Adds a note, unless there is the same already.
    pub(super) fn note(&mut self, name: &str, note: String) {
        if !self.notes.iter().any(|(_, other)| *other == note) {
            self.notes.push((name.to_string(), note));
        }
    }
}

/// Some rows of an outside table.
pub(super) struct Sample {
    pub(super) batch: RecordBatch,
    /// Their numbers in the table, from 0.
    pub(super) rows: Vec<usize>,
}

/// A check of a graph in progress, and its results so far.
pub(super) struct Preflight<'a> {
    pub(super) graph: &'a Graph,
    /// In place of every node's devices.
    pub(super) device: Option<&'a DeviceChoice>,
    /// The schemas of the outside tables, by their index in the graph's sources.
    pub(super) sources: HashMap<usize, SchemaRef>,
    /// The numbers of their rows.
    pub(super) rows: HashMap<usize, usize>,
    pub(super) checked: Checked,
    /// Rows of each outside table of prompts or preferences, from its whole length.
    pub(super) samples: HashMap<usize, Sample>,
    /// Outside models without their weights.
    pub(super) checkpoints: HashMap<&'a Path, Checkpoint>,
    /// Each model with a table and the operator that has tried to encode its rows.
    pub(super) encoded: HashSet<(&'a Path, usize, &'static str)>,
    /// All rows of the outside tables of benchmarks.
    pub(super) items: HashMap<usize, Vec<RecordBatch>>,
    /// The processes of rewards that were found.
    pub(super) processes: Vec<Process>,
    /// The schemas of the tasks' outputs, in the graph's order; none where only the run will show
    /// it: a command's own table, and what queries make of it.
    pub(super) tasks: Vec<Option<SchemaRef>>,
}
