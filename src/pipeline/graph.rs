//! The checked, unrolled pipeline: sources and tasks, every input resolved.
//!
//! Knows what each task reads and with which settings; not how it runs, nor what is already done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::NaiveDate;
use indexmap::IndexMap;
use serde_json::{Value, json};

use super::slot::Slot;
use super::spec::input::{Columns, DatasetFormat, Format, Server};
use super::spec::operator::{Operator, Output, Resources};
use super::spec::tracking::Tracking;
use super::spec::{Param, Spec};

/// A pipeline, ready to run: every task after the tasks it reads.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The name of the run.
    pub name: String,
    /// What all randomness is drawn from.
    pub seed: u64,
    /// The params, after `--set`.
    pub params: IndexMap<String, Param>,
    /// How many iterations; 0 without `iterate`.
    pub iterations: u32,
    /// What is read from outside, in the file's order.
    pub sources: Vec<Source>,
    /// What is to be made, each task once for every iteration, in an order in which it can run.
    pub tasks: Vec<Task>,
    /// The file as types, params and SQL files filled in.
    pub(super) spec: Spec,
}

/// Something read from outside.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the pipeline file.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// The line of the pipeline file that names it.
    pub line: usize,
}

/// What is read from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Files of rows.
    Table {
        /// The files, at least one, which were there when the pipeline was checked; sorted.
        paths: Vec<PathBuf>,
        /// Their format.
        format: Format,
        /// What separates two values of a csv file; given for csv only.
        delimiter: Option<char>,
        /// Whether the first row of a csv file names the columns; given for csv only.
        header: Option<bool>,
        /// A csv file's columns as far as given; every other one is text.
        columns: Columns,
        /// How prompts and responses lie in the columns, if the file says.
        dataset_format: DatasetFormat,
        /// Columns to rename: ours, each with theirs.
        map: IndexMap<String, String>,
        /// The most memory that the rows may take, in bytes.
        max_bytes: u64,
    },
    /// A Hugging Face model directory.
    Model {
        /// The directory, which was there when the pipeline was checked; or `hf://ORG/NAME@REVISION`, until it is fetched.
        path: PathBuf,
    },
    /// A way to reward responses.
    Reward {
        /// Which way.
        reward: Reward,
    },
}

/// A way to reward responses, its files found.
#[derive(Clone, Debug, PartialEq)]
pub enum Reward {
    /// One source, whose reward is taken as it is.
    One(RewardSource),
    /// The sum of several, each times its weight.
    Sum(Vec<Component>),
}

/// One term of a weighted sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// What its reward is multiplied by.
    pub weight: f64,
    /// Its name among the components of each reward.
    pub name: String,
    /// Where its reward comes from.
    pub source: RewardSource,
}

/// Where a reward comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum RewardSource {
    /// A query, as its text.
    Sql(String),
    /// The directory of a reward model, which was there when the pipeline was checked; or `hf://ORG/NAME@REVISION`, until it is fetched.
    Model(PathBuf),
    /// A server.
    Http(Server),
    /// Another source or task: the one in a slot `rewards` with this name.
    Named(String),
}

impl Reward {
    /// The sources, in order.
    pub fn sources(&self) -> impl Iterator<Item = &RewardSource> {
        let (one, several) = match self {
            Self::One(source) => (Some(source), [].as_slice()),
            Self::Sum(components) => (None, components.as_slice()),
        };
        one.into_iter().chain(several.iter().map(|component| &component.source))
    }

    /// The directories of its reward models.
    fn models_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (one, several) = match self {
            Self::One(source) => (Some(source), [].as_mut_slice()),
            Self::Sum(components) => (None, components.as_mut_slice()),
        };
        let sources = one.into_iter().chain(several.iter_mut().map(|component| &mut component.source));
        sources.filter_map(|source| match source {
            RewardSource::Model(path) => Some(path),
            RewardSource::Sql(_) | RewardSource::Http(_) | RewardSource::Named(_) => None,
        })
    }

    /// What a reward is decided by, besides the contents of models and of the rewards it names.
    pub fn settings(&self) -> Value {
        let source = |source: &RewardSource| match source {
            RewardSource::Sql(sql) => json!({ "sql": sql }),
            RewardSource::Model(_) => json!({ "model": Value::Null }),
            RewardSource::Http(server) => json!({ "http": server.http, "protocol": server.protocol, "version": server.version }),
            RewardSource::Named(name) => json!({ "reward": name }),
        };
        match self {
            Self::One(one) => source(one),
            Self::Sum(components) => {
                let component = |c: &Component| json!({ "weight": c.weight, "name": c.name, "source": source(&c.source) });
                components.iter().map(component).collect()
            }
        }
    }
}

/// One node in one iteration.
#[derive(Clone, Debug)]
pub struct Task {
    /// The name of the table or model it makes.
    pub name: String,
    /// The iteration, from 1; none for a task that runs once, before them.
    pub iteration: Option<u32>,
    /// What it does. At t = 1 with no pool to select from, `select` has the strategy `all`.
    pub operator: Operator,
    /// The canonical settings for the fingerprint: every default written out, SQL files as their text; no names, no resources.
    pub settings: BTreeMap<String, Value>,
    /// What it reads. Slots come in a fixed order; a slot with several inputs (`responses`, `tables`) has several entries.
    pub inputs: Vec<Binding>,
    /// What it may use.
    pub resources: Resources,
    /// The line of the pipeline file that asks for it.
    pub line: usize,
}

/// One input of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The filled slot.
    pub slot: Slot,
    /// What the input is called where that matters: the relation in the SQL of a `tables` slot, else the name of the source or task.
    pub name: String,
    /// What fills it.
    pub input: Input,
}

/// What fills a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// An index into [`Graph::sources`].
    Source(usize),
    /// An index into [`Graph::tasks`].
    Task(usize),
}

impl Task {
    /// The date that the chat template of the task's model may write.
    pub fn date(&self) -> Option<NaiveDate> {
        self.settings.get("date").and_then(Value::as_str).and_then(|date| date.parse().ok())
    }

    /// The first input in a slot.
    pub fn input(&self, slot: Slot) -> Option<Input> {
        self.inputs(slot).next().map(|binding| binding.input)
    }

    /// All inputs in a slot.
    pub fn inputs(&self, slot: Slot) -> impl Iterator<Item = &Binding> {
        self.inputs.iter().filter(move |binding| binding.slot == slot)
    }

    /// What the task makes.
    pub fn output(&self) -> Output {
        self.operator.output()
    }
}

impl Graph {
    /// The source that an input is, if it is one.
    pub fn source(&self, input: Input) -> Option<&Source> {
        match input {
            Input::Source(index) => self.sources.get(index),
            Input::Task(_) => None,
        }
    }

    /// The task that an input is, if it is one.
    pub fn task(&self, input: Input) -> Option<&Task> {
        match input {
            Input::Task(index) => self.tasks.get(index),
            Input::Source(_) => None,
        }
    }

    /// The model directories that `inputs` name, each with its input's name, for those that begin with `hf://` to be fetched.
    pub fn models_mut(&mut self) -> impl Iterator<Item = (&str, &mut PathBuf)> {
        self.sources.iter_mut().flat_map(|source| {
            let paths: Vec<&mut PathBuf> = match &mut source.kind {
                SourceKind::Model { path } => vec![path],
                SourceKind::Reward { reward } => reward.models_mut().collect(),
                SourceKind::Table { .. } => Vec::new(),
            };
            paths.into_iter().map(|path| (source.name.as_str(), path))
        })
    }

    /// Where the run's numbers are shown besides its tables.
    pub fn tracking(&self) -> &Tracking {
        &self.spec.tracking
    }

    /// The pipeline file with params and SQL files filled in and every default written out, under the graph's name. Loading it gives the same graph.
    ///
    /// # Errors
    /// When a value cannot be written as YAML; none that a pipeline file can hold is known.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        let mut spec = self.spec.clone();
        spec.name.value.clone_from(&self.name);
        serde_saphyr::to_string(&spec)
    }
}
