//! What can be found out before anything heavy is loaded: columns, ids, model directories, queries, devices.
//!
//! Follows the graph once with schemas instead of rows, so that a query that names a wrong column fails now and not in an hour.

mod models;
mod tables;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::budget::Budget;
use super::reward::Reward;
use super::{StageError, adapters, device_choice, generate_remote};
use crate::compute::DeviceChoice;
use crate::model::{Asked, Checkpoint, Head};
use crate::pipeline::graph::{Graph, SourceKind, Task};
use crate::pipeline::spec::input::Shape;
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::sampling::Generate;
use crate::pipeline::spec::select::{Select, Strategy};
use crate::pipeline::spec::training::Initialize;
use tables::names;

/// How many prompts of a table are tried on a model's chat template.
const PROMPTS_TRIED: usize = 100;

/// The shapes of outside tables of prompts and preferences, by the tables' names.
pub type Shapes = BTreeMap<String, Shape>;

/// Checks the graph's inputs and queries; `device` overrides that of every node. Says how the outside tables' rows are read.
///
/// # Errors
/// The first thing found wrong, with the file, table, row or column, and the node's line in the pipeline file.
pub fn check(graph: &Graph, device: Option<DeviceChoice>) -> Result<Shapes, StageError> {
    let mut known = Known {
        graph,
        sources: HashMap::new(),
        shapes: Shapes::new(),
        asked: HashMap::new(),
        opened: HashMap::new(),
        tried: HashSet::new(),
        tasks: Vec::new(),
    };
    for task in &graph.tasks {
        // Iterations differ in their inputs only where t = 1 starts; the second one shows all there is to see.
        let schema = known.check(task, device).map_err(|error| match error {
            error if error.is_input() => StageError::Input(format!("line {}: {}: {error}", task.line, task.label())),
            other => other,
        })?;
        known.tasks.push(schema);
    }
    Ok(known.shapes)
}

/// The schemas of what was checked so far.
struct Known<'a> {
    graph: &'a Graph,
    sources: HashMap<usize, SchemaRef>,
    shapes: Shapes,
    /// The first prompts of each outside table of prompts.
    asked: HashMap<usize, Vec<Asked>>,
    /// Outside models without their weights.
    opened: HashMap<&'a Path, Checkpoint>,
    /// The models and tables that were tried together.
    tried: HashSet<(&'a Path, usize)>,
    tasks: Vec<SchemaRef>,
}

impl Known<'_> {
    /// Checks one task whose inputs were checked; gives its output's columns (none for a model).
    fn check(&mut self, task: &Task, device: Option<DeviceChoice>) -> Result<SchemaRef, StageError> {
        for slot in ["prompts", "demonstrations"] {
            for input in task.inputs(slot) {
                let schema = self.prompts(input.input)?;
                if let Operator::Sft(settings) = &task.operator
                    && schema.field_with_name(&settings.response).is_err()
                {
                    let (expected, found) = (&settings.response, names(&schema));
                    let problem = format!("demonstrations: expected a column {expected}, found {found}; name it with `response:`");
                    return Err(StageError::Input(problem));
                }
            }
        }
        if let (Operator::Select(Select { strategy: Strategy::ZScore(settings), .. }), Some(prompts)) =
            (&task.operator, task.input("prompts"))
        {
            let schema = self.prompts(prompts)?;
            if schema.field_with_name(&settings.group).is_err() {
                let (expected, found) = (&settings.group, names(&schema));
                let problem = format!("prompts: expected a column {expected}, found {found}; name it with `z_score: {{ group: … }}`");
                return Err(StageError::Input(problem));
            }
        }
        if let (Operator::Select(_), Some(pool)) = (&task.operator, task.input("pool")) {
            let schema = self.table(pool)?;
            let has = |name: &str| schema.field_with_name(name).is_ok();
            if !(has("prompt_id") && has("reward")) {
                return Err(StageError::Input(format!("pool: expected the columns prompt_id and reward, found {}", names(&schema))));
            }
        }
        for slot in ["preferences", "held_out"] {
            for input in task.inputs(slot) {
                self.preferences(input.input)?;
            }
        }
        for slot in ["policy", "from", "reference", "initial"] {
            for input in task.inputs(slot) {
                if let Some(SourceKind::Model { path }) = self.graph.source(input.input).map(|source| &source.kind) {
                    match &task.operator {
                        Operator::Sft(sft) if sft.initialize == Initialize::Random => {
                            Checkpoint::open_blank(path)?.expect(Head::CausalLm)?
                        }
                        Operator::RewardModel(_) => {
                            self.reads_messages(&Checkpoint::open(path)?.with_date(task.date()), task, "preferences")?
                        }
                        _ => Checkpoint::open(path)?.expect(Head::CausalLm)?,
                    };
                }
            }
        }
        if task.iteration.is_none_or(|iteration| iteration <= 2) {
            adapters::check(self.graph, task)?;
        }
        self.try_prompts(task)?;
        if let Operator::Generate(Generate { engine: Some(engine), .. }) = &task.operator {
            generate_remote::client(engine)?;
        }
        if super::slot(self.graph, task) == crate::dag::schedule::Slot::Device {
            let device = device.unwrap_or_else(|| device_choice(task)).resolve()?;
            if let Some(budget) = Budget::of(&task.resources, device == burn::tensor::Device::flex()) {
                self.fits(task, budget)?;
            }
        }
        match (&task.operator, task.table_kind()) {
            (Operator::Sql(settings), _) => {
                let session = self.session(task)?;
                Ok(session.schema_of(&settings.query.text)?)
            }
            (Operator::Score(_), Some(kind)) => {
                self.reward(task, &Reward::of(self.graph, task)?)?;
                Ok(kind.schema())
            }
            (_, Some(kind)) => Ok(kind.schema()),
            (_, None) => Ok(Arc::new(Schema::empty())),
        }
    }
}
