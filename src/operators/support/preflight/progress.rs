//! A check of a graph in progress.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use arrow::datatypes::SchemaRef;

use crate::model::{Checkpoint, PromptContent};
use crate::pipeline::graph::Graph;
use crate::pipeline::spec::input::DatasetFormat;

/// The dataset formats of outside tables of prompts and preferences, by the tables' names.
pub type DatasetFormats = BTreeMap<String, DatasetFormat>;

/// A check of a graph in progress, and its results so far.
pub(super) struct Preflight<'a> {
    pub(super) graph: &'a Graph,
    /// The schemas of the outside tables, by their index in the graph's sources.
    pub(super) sources: HashMap<usize, SchemaRef>,
    pub(super) dataset_formats: DatasetFormats,
    /// The first prompts of each outside table of prompts.
    pub(super) first_prompts: HashMap<usize, Vec<PromptContent>>,
    /// Outside models without their weights.
    pub(super) checkpoints: HashMap<&'a Path, Checkpoint>,
    /// The pairs of a model and a table with a successful encoding.
    pub(super) encoded: HashSet<(&'a Path, usize)>,
    /// The schemas of the tasks' outputs, in the graph's order.
    pub(super) tasks: Vec<SchemaRef>,
}
