//! The checked and unrolled pipeline: sources and tasks with all inputs.
//!
//! Knows the inputs and settings of each task, not how it runs or whether its output exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::hidden_queries::without_queries;
use super::paths;
use super::position::{Name, Span};
use super::slot::Slot;
use super::spec::input::{self as spec_input, Columns, DatasetFormat, Format, Program, Server, Split};
use super::spec::judge::{Judge, Question};
use super::spec::malformed::Malformed;
use super::spec::operator::{Operator, Output};
use super::spec::precision::Precision;
use super::spec::resources::Resources;
use super::spec::tracking::Tracking;
use super::spec::{Param, Spec};
use crate::dag::fingerprint::Fingerprint;
use crate::model::TemplateSettings;

/// A pipeline, ready to run: every task after the tasks it reads.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The name of the run.
    pub name: String,
    /// The seed of all random numbers, a whole number of at least 0.
    pub seed: u64,
    /// The params, after `--set`, without the queries of addresses.
    pub params: IndexMap<String, Param>,
    /// The number of iterations; 0 without `iterate`.
    pub iterations: u32,
    /// The folder of its relative paths, where its programs run; empty for the working directory.
    pub folder: PathBuf,
    /// The outside inputs, in the order of the file.
    pub sources: Vec<Source>,
    /// The tasks, one for each node and iteration, in an executable order.
    pub tasks: Vec<Task>,
    /// The scheduler of a cluster for the parts of nodes with models, as `HOST:PORT`.
    pub cluster: Option<String>,
    /// The file as types, params and SQL files filled in.
    pub(super) spec: Spec,
}

/// An outside input.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the pipeline file.
    pub name: String,
    /// Its kind.
    pub kind: SourceKind,
    /// Its line in the pipeline file.
    pub line: usize,
}

/// The kind of an outside input.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Files of rows.
    Table {
        /// The files, at least one, sorted. They existed during the check of the pipeline; those
        /// elsewhere are addresses before the download.
        paths: Vec<PathBuf>,
        /// Their format.
        format: Format,
        /// The separator of a csv file; for csv only.
        delimiter: Option<char>,
        /// Whether the first row of a csv file has the names of the columns; for csv only.
        header: Option<bool>,
        /// The types of some columns; of all in order for a csv file without a header.
        columns: Columns,
        /// The layout of prompts and responses in the columns.
        dataset_format: DatasetFormat,
        /// Columns to rename: ours, each with theirs.
        map: IndexMap<String, String>,
        /// The reaction to rows that cannot be used.
        malformed: Malformed,
        /// The part of the rows; all of them without one.
        split: Option<Split>,
        /// The memory limit for the rows, in bytes.
        max_bytes: u64,
    },
    /// A Hugging Face model directory.
    Model {
        /// The directory, existing during the check of the pipeline; or `hf://ORG/NAME@REVISION`
        /// before the download.
        path: PathBuf,
    },
    /// A reward for responses.
    Reward {
        /// The source or sources.
        reward: Reward,
    },
}

/// A reward with its files.
#[derive(Clone, Debug, PartialEq)]
pub enum Reward {
    /// The text of a query.
    Sql(String),
    /// The directory of a reward model, existing during the check of the pipeline; or
    /// `hf://ORG/NAME@REVISION` before the download.
    Model(PathBuf),
    /// A server.
    Http(Server),
    /// A process.
    Process(Box<Process>),
    /// A judge; the text of its template is known.
    Judge(Box<Judge>),
    /// Another source or task: the input with this name in a slot `rewards`. In a sum only.
    Named(String),
    /// The reward model made by the task at this index of [`Graph::tasks`]. In a resolved reward
    /// only, in the place of its name.
    Task(usize),
    /// The sum of several, each times its weight.
    Sum(Vec<Component>),
}

/// A process that scores responses, with its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its settings.
    pub settings: spec_input::Process,
    /// Its working directory, existing during the check of the pipeline; empty for that of this
    /// program.
    pub directory: PathBuf,
    /// The directory of its files and interpreter; empty for the working directory of this program.
    pub folder: PathBuf,
    /// Its files as they were during the check of the pipeline, sorted by their names.
    pub files: Vec<HashedFile>,
}

/// A file and its hash at the start of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct HashedFile {
    /// Its path as the pipeline file has it.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its hash.
    pub fingerprint: Fingerprint,
}

/// One term of a weighted sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// The factor of its reward.
    pub weight: f64,
    /// Its name among the components of each reward.
    pub name: String,
    /// Its reward.
    pub reward: Reward,
}

impl Reward {
    /// The rewards without the sums, in order.
    pub fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::Sum(components) => components.iter().flat_map(|component| component.reward.leaves()).collect(),
            leaf => vec![leaf],
        }
    }

    /// Whether it consists of queries only.
    pub fn is_relational(&self) -> bool {
        self.leaves().iter().all(|leaf| matches!(leaf, Self::Sql(_)))
    }

    /// Whether it consists of queries and reward models only.
    pub fn is_computed_here(&self) -> bool {
        self.leaves().iter().all(|leaf| matches!(leaf, Self::Sql(_) | Self::Model(_) | Self::Task(_)))
    }

    /// Whether a reward model is part of it.
    pub fn has_model(&self) -> bool {
        self.leaves().iter().any(|leaf| matches!(leaf, Self::Model(_) | Self::Task(_)))
    }

    /// The directories of its reward models.
    fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Model(path) => vec![path],
            Self::Sum(components) => components.iter_mut().flat_map(|component| component.reward.models_mut()).collect(),
            Self::Sql(_) | Self::Http(_) | Self::Judge(_) | Self::Process(_) | Self::Named(_) | Self::Task(_) => Vec::new(),
        }
    }

    /// The settings of a reward for the fingerprint, without the contents of models and of named
    /// rewards.
    pub fn settings(&self) -> Value {
        match self {
            Self::Sql(sql) => json!({ "sql": sql }),
            Self::Model(_) | Self::Task(_) => json!({ "model": Value::Null }),
            Self::Http(server) => json!({ "http": server.http.first(), "protocol": server.protocol, "version": server.version }),
            Self::Process(process) => process.fingerprinted(),
            Self::Judge(judge) => json!({ "judge": judge.settings(Question::Score) }),
            Self::Named(name) => json!({ "reward": name }),
            Self::Sum(components) => {
                let component = |c: &Component| json!({ "weight": c.weight, "name": c.name, "source": c.reward.settings() });
                components.iter().map(component).collect()
            }
        }
    }
}

impl Process {
    /// The settings for the fingerprint, with the hashes of its files.
    fn fingerprinted(&self) -> Value {
        let files: BTreeMap<&str, &Fingerprint> = self.files.iter().map(|file| (file.name.as_str(), &file.fingerprint)).collect();
        let mut settings = match &self.settings.program {
            Program::Command { command, format } => json!({ "command": command, "format": format }),
            Program::Python { function, arguments, .. } => json!({ "python": function, "arguments": arguments }),
        };
        settings["files"] = json!(files);
        settings["version"] = json!(self.settings.version);
        settings
    }
}

/// One node in one iteration.
#[derive(Clone, Debug)]
pub struct Task {
    /// The name of its output.
    pub name: String,
    /// The iteration, from 1; none for a task before the iterations.
    pub iteration: Option<u32>,
    /// Its operator. At t = 1 without a pool, `select` has the strategy `all`.
    pub operator: Operator,
    /// The canonical settings for the fingerprint: every default written out, SQL files as text; no
    /// names of inputs, no resources.
    pub settings: BTreeMap<String, Value>,
    /// Its inputs in a fixed order. A slot with several inputs (`responses`, `tables`) has several
    /// entries.
    pub inputs: Vec<Binding>,
    /// Tasks to wait for besides its inputs, as indices into [`Graph::tasks`]: their failure ends
    /// the run. No part of the fingerprint.
    pub after: Vec<usize>,
    /// The precision of its models; f32 where it computes none. Part of the settings if it is bf16.
    pub precision: Precision,
    /// Its resources.
    pub resources: Resources,
    /// The line of its node in the pipeline file.
    pub line: usize,
}

/// One input of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The filled slot.
    pub slot: Slot,
    /// The name of the source or task. In a `tables` slot: the name of the table in the query. In
    /// an `inputs` slot: the name of the input for the command.
    pub name: String,
    /// The input in the slot.
    pub input: Input,
}

/// An input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// An index into [`Graph::sources`].
    Source(usize),
    /// An index into [`Graph::tasks`].
    Task(usize),
}

impl Task {
    /// The settings of its models' chat templates.
    pub fn template_settings(&self) -> TemplateSettings {
        TemplateSettings {
            date: self.settings.get("date").and_then(Value::as_str).and_then(|date| date.parse().ok()),
            variables: self.settings.get("chat_template_kwargs").and_then(Value::as_object).cloned().unwrap_or_default(),
        }
    }

    /// The first input in a slot.
    pub fn input(&self, slot: Slot) -> Option<Input> {
        self.inputs(slot).next().map(|binding| binding.input)
    }

    /// All inputs in a slot.
    pub fn inputs(&self, slot: Slot) -> impl Iterator<Item = &Binding> {
        self.inputs.iter().filter(move |binding| binding.slot == slot)
    }

    /// The kind of its output.
    pub fn output(&self) -> Output {
        self.operator.output()
    }
}

impl Graph {
    /// The source behind an input; none for a task.
    pub fn source(&self, input: Input) -> Option<&Source> {
        match input {
            Input::Source(index) => self.sources.get(index),
            Input::Task(_) => None,
        }
    }

    /// The task behind an input; none for a source.
    pub fn task(&self, input: Input) -> Option<&Task> {
        match input {
            Input::Task(index) => self.tasks.get(index),
            Input::Source(_) => None,
        }
    }

    /// The directories of all models in `inputs`, each with the name of its input. Paths with
    /// `hf://` wait for their download.
    pub fn models_mut(&mut self) -> impl Iterator<Item = (&str, &mut PathBuf)> {
        self.sources.iter_mut().flat_map(|source| {
            let paths: Vec<&mut PathBuf> = match &mut source.kind {
                SourceKind::Model { path } => vec![path],
                SourceKind::Reward { reward } => reward.models_mut(),
                SourceKind::Table { .. } => Vec::new(),
            };
            paths.into_iter().map(|path| (source.name.as_str(), path))
        })
    }

    /// The files of all tables, each with the name of its input. Addresses wait for their download.
    pub fn tables_mut(&mut self) -> impl Iterator<Item = (&str, &mut Vec<PathBuf>)> {
        self.sources.iter_mut().filter_map(|source| match &mut source.kind {
            SourceKind::Table { paths, .. } => Some((source.name.as_str(), paths)),
            SourceKind::Model { .. } | SourceKind::Reward { .. } => None,
        })
    }

    /// The displays of the run besides its tables.
    pub fn tracking(&self) -> &Tracking {
        &self.spec.tracking
    }

    /// The pipeline file with params and SQL files filled in and every default written out, under
    /// the name of the graph, for a file in the folder `kept`. Loading it gives the same graph,
    /// with hashes in place of the queries of addresses.
    ///
    /// # Errors
    /// The folder of the paths is gone; a value without a YAML form, of which a pipeline file has
    /// none.
    pub fn to_yaml(&self, kept: &Path) -> Result<String, String> {
        let mut spec = without_queries(&self.spec);
        spec.name.value.clone_from(&self.name);
        let seen = paths::seen_from(&self.folder, kept).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let is_elsewhere = seen != Path::new(".");
        spec.folder = is_elsewhere.then(|| Name { value: seen.to_string_lossy().into_owned(), span: Span::default() });
        serde_saphyr::to_string(&spec).map_err(|error| error.to_string())
    }
}
