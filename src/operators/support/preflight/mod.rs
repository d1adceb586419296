//! Checks before anything heavy is loaded: columns, ids, model directories, queries, devices.
//!
//! Follows the graph once with schemas instead of rows. So a query with a wrong column fails now
//! and not in an hour.

mod benchmarks;
mod endings;
mod examples;
mod models;
mod progress;
mod samples;
mod tables;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::memory_budget::Budget;
use super::{OperatorError, device_choice, lora, replicas, reward_tree, staying};
use crate::compute::DeviceChoice;
use crate::dag::schedule::Lane;
use crate::model::{Checkpoint, Head};
use crate::operators::generate::server;
use crate::operators::{lane, texts};
use crate::pipeline::graph::{Graph, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::generate::Generate;
use crate::pipeline::spec::judge::Question;
use crate::pipeline::spec::operator::{Operator, Output};
use crate::pipeline::spec::select::{Select, Strategy};
use crate::pipeline::spec::sft::Initialize;
pub use progress::{Checked, DatasetFormats};

use progress::Preflight;
use tables::names;

/// Checks the graph's inputs and queries; `device` overrides the devices of every node.
///
/// # Errors
/// The first fault, with the file, table, row or column, and the node's line in the pipeline file.
pub fn check(graph: &Graph, device: Option<&DeviceChoice>) -> Result<Checked, OperatorError> {
    let mut preflight = Preflight {
        graph,
        device,
        sources: HashMap::new(),
        rows: HashMap::new(),
        checked: Checked::default(),
        samples: HashMap::new(),
        checkpoints: HashMap::new(),
        encoded: HashSet::new(),
        items: HashMap::new(),
        processes: Vec::new(),
        tasks: Vec::new(),
    };
    for task in &graph.tasks {
        let schema = preflight.check(task).map_err(|error| match error {
            error if error.is_input() => OperatorError::Input(format!("line {}: {}: {error}", task.line, task.label())),
            other => other,
        })?;
        preflight.tasks.push(schema);
    }
    Ok(preflight.checked)
}

impl Preflight<'_> {
    /// The devices of a task.
    fn device(&self, task: &Task) -> DeviceChoice {
        self.device.cloned().unwrap_or_else(|| device_choice(task))
    }

    /// Whether executors of a cluster compute the parts of a task.
    fn goes_to_cluster(&self, task: &Task) -> bool {
        self.graph.cluster.is_some() && staying(self.graph, task).is_none()
    }

    /// Whether the models of a task run on a CPU.
    ///
    /// # Errors
    /// The device of a task on this machine is not there.
    fn on_cpu(&self, task: &Task) -> Result<bool, OperatorError> {
        let device = self.device(task);
        if self.goes_to_cluster(task) && device.is_gpu() {
            return Ok(false);
        }
        Ok(device.resolve()? == burn::tensor::Device::flex())
    }

    /// Checks the models, devices and memory of a task on this machine.
    fn computes_here(&mut self, task: &Task) -> Result<(), OperatorError> {
        let device = self.device(task);
        let devices = device.resolve_all()?;
        let on_cpu = devices.first().is_some_and(|device| *device == burn::tensor::Device::flex());
        let trains = task.operator.optimizer().is_some();
        if trains {
            replicas::check_training(&device)?;
        }
        // Replicas in training share one model.
        let copies = if trains { 1 } else { devices.len() };
        self.computes(task, Budget::new(&task.resources, on_cpu).map(|budget| budget.among(copies)), on_cpu)
    }

    /// Checks one task after its inputs. Returns its output's columns (no columns for a model), if
    /// they are known before the run.
    fn check(&mut self, task: &Task) -> Result<Option<SchemaRef>, OperatorError> {
        for slot in [Slot::Prompts, Slot::Demonstrations] {
            for input in task.inputs(slot) {
                if let Some(schema) = self.prompts(input.input)?
                    && let Operator::Sft(settings) = &task.operator
                    && schema.field_with_name(&settings.response).is_err()
                {
                    let (expected, found) = (&settings.response, names(&schema));
                    let problem = format!("demonstrations: expected a column {expected}, found {found}; name it with `response:`");
                    return Err(OperatorError::Input(problem));
                }
            }
        }
        if let (Operator::Select(Select { strategy: Strategy::ZScore(settings), .. }), Some(prompts)) =
            (&task.operator, task.input(Slot::Prompts))
            && let Some(schema) = self.prompts(prompts)?
            && schema.field_with_name(&settings.group).is_err()
        {
            let (expected, found) = (&settings.group, names(&schema));
            let problem = format!("prompts: expected a column {expected}, found {found}; name it with `z_score: {{ group: … }}`");
            return Err(OperatorError::Input(problem));
        }
        if let (Operator::Select(_), Some(pool)) = (&task.operator, task.input(Slot::Pool))
            && let Some(schema) = self.table(pool)?
        {
            let has = |name: &str| schema.field_with_name(name).is_ok();
            if !(has("prompt_id") && has("reward")) {
                return Err(OperatorError::Input(format!("pool: expected the columns prompt_id and reward, found {}", names(&schema))));
            }
        }
        for slot in [Slot::Preferences, Slot::HeldOut] {
            for input in task.inputs(slot) {
                self.preferences(input.input)?;
            }
        }
        for slot in [Slot::Policy, Slot::From, Slot::Reference, Slot::Initial] {
            for input in task.inputs(slot) {
                if let Some(SourceKind::Model { path }) = self.graph.source(input.input).map(|source| &source.kind) {
                    match &task.operator {
                        Operator::Sft(sft) if sft.initialize == Initialize::Random => {
                            Checkpoint::open_blank(path)?.expect(Head::CausalLm)?
                        }
                        Operator::RewardModel(_) => {
                            let checkpoint = Checkpoint::open(path)?.with_template_settings(task.template_settings());
                            checkpoint.padding_warning().into_iter().for_each(|warning| self.checked.note(&task.label(), warning));
                            self.reads_messages(&checkpoint, task, Slot::Preferences)?
                        }
                        _ => Checkpoint::open(path)?.expect(Head::CausalLm)?,
                    };
                }
            }
        }
        // Iterations differ in their inputs only where t = 1 starts, so the first two show every
        // case.
        if task.iteration.is_none_or(|iteration| iteration <= 2) {
            lora::check(self.graph, task)?;
        }
        self.benchmark_items(task)?;
        self.learns(task)?;
        self.encode_prompts(task)?;
        self.encode_examples(task)?;
        self.endings(task)?;
        if let Operator::Generate(Generate { engine: Some(engine), .. }) = &task.operator {
            server::check(self.graph, task, engine)?;
        }
        if let Some(program) = task.operator.program() {
            for file in &program.place.unlisted {
                let note =
                    format!("{file} is an argument, but its contents are not: name it in `files:` for a new run after a change of it");
                self.checked.note(&task.name, note);
            }
            // Tables of outside are checked where they are read.
            for input in task.inputs(Slot::Inputs) {
                if self.is_table(input.input) {
                    self.table(input.input)?;
                }
            }
        } else if lane(self.graph, task) == Lane::Device {
            if self.goes_to_cluster(task) {
                // An executor has a memory of its own.
                self.computes(task, None, self.on_cpu(task)?)?;
            } else {
                self.computes_here(task)?;
            }
        }
        match (&task.operator, task.table_kind()) {
            (Operator::Sql(settings), _) => match self.session(task)? {
                Some(session) => Ok(Some(session.schema_of(&settings.query.text)?)),
                None => Ok(None),
            },
            (Operator::Score(_), Some(kind)) => {
                self.reward(task, &reward_tree::resolve(self.graph, task)?)?;
                Ok(Some(kind.schema()))
            }
            (Operator::Judge(judge), Some(kind)) => {
                self.judge(task, judge, Question::Pair)?;
                Ok(Some(kind.schema()))
            }
            (Operator::Texts(_), Some(kind)) => {
                for input in task.inputs(Slot::Texts) {
                    if let Some(schema) = self.table(input.input)? {
                        texts::check_columns(&schema)?;
                    }
                }
                Ok(Some(kind.schema()))
            }
            (_, Some(kind)) => Ok(Some(kind.schema())),
            (Operator::Command(_), None) if task.output() == Output::Table => Ok(None),
            (_, None) => Ok(Some(Arc::new(Schema::empty()))),
        }
    }
}
