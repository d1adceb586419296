//! What can be found out before anything heavy is loaded: columns, ids, model directories, queries, devices.
//!
//! Follows the graph once with schemas instead of rows, so that a query that names a wrong column fails now and not in an hour.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::input::import;
use super::reward::{ModelAt, Reward, Term};
use super::{Prompts, StageError, adapters, device_choice, generate_remote, score};
use crate::model::{Asked, Checkpoint, DeviceChoice, Head, ModelError};
use crate::pipeline::graph::{Graph, Input, SourceKind, Task};
use crate::pipeline::spec::input::Shape;
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::sampling::Generate;
use crate::pipeline::spec::training::Initialize;
use crate::store::Session;
use crate::tables::TableKind;

/// How many prompts of a table are tried on a model's chat template.
const PROMPTS_TRIED: usize = 100;

/// The shapes of outside tables of prompts and preferences, by the tables' names.
pub type Shapes = BTreeMap<String, Shape>;

/// Checks the graph's inputs and queries; `device` overrides that of every node. Says how the outside tables' rows are read.
///
/// # Errors
/// The first thing found wrong, with the file, table, row or column, and the node's line in the pipeline file.
pub fn check(graph: &Graph, device: Option<DeviceChoice>) -> Result<Shapes, StageError> {
    let mut known =
        Known { graph, sources: HashMap::new(), shapes: Shapes::new(), asked: HashMap::new(), tried: HashSet::new(), tasks: Vec::new() };
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
    /// The models and tables that were tried together.
    tried: HashSet<(&'a Path, usize)>,
    tasks: Vec<SchemaRef>,
}

impl<'a> Known<'a> {
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
            device.unwrap_or_else(|| device_choice(task)).resolve()?;
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

    /// Encodes the first prompts of an outside table as the task's model will, because a chat template that fails does so for all of
    /// them. Single prompts that a template refuses become rows with an error when the task runs.
    fn try_prompts(&mut self, task: &Task) -> Result<(), StageError> {
        for (model, prompts) in [("policy", "prompts"), ("from", "demonstrations")] {
            let (Some(model), Some(Input::Source(table))) = (task.input(model), task.input(prompts)) else { continue };
            let Some(folder) = self.base_model(model) else { continue };
            let asked = self.asked.get(&table).map(Vec::as_slice).unwrap_or_default();
            if !self.tried.insert((folder, table)) || asked.iter().all(|asked| matches!(asked, Asked::Text(_))) {
                continue;
            }
            let checkpoint = Checkpoint::open_blank(folder)?.with_date(task.date());
            let mut refusals = Vec::new();
            for asked in asked {
                match checkpoint.encode_prompt(asked) {
                    Ok(_) => {}
                    Err(error @ (ModelError::Chat(_) | ModelError::Invalid { .. })) => return Err(error.into()),
                    Err(refused) => refusals.push(refused),
                }
            }
            if refusals.len() == asked.len() {
                return Err(refusals.swap_remove(0).into());
            }
        }
        Ok(())
    }

    /// Plans a reward's queries, opens its models, and makes its servers' clients, which ask nothing yet.
    fn reward(&mut self, task: &Task, reward: &Reward) -> Result<(), StageError> {
        match reward {
            Reward::Query(sql) => {
                let session = self.session(task)?;
                session.register_empty("responses", TableKind::Responses.schema())?;
                if let Some(prompts) = task.input("prompts") {
                    session.register_empty("prompts", self.prompts(prompts)?)?;
                }
                score::check_columns(&*session.schema_of(sql)?)
            }
            Reward::Model(ModelAt::Outside(path)) => {
                let checkpoint = Checkpoint::open(path)?.with_date(task.date());
                checkpoint.expect(Head::Reward)?;
                self.reads_messages(&checkpoint, task, "prompts")
            }
            // The node that makes it is checked for itself.
            Reward::Model(ModelAt::Made(_)) => Ok(()),
            Reward::Server(settings) => score::client(settings).map(drop),
            Reward::Sum(terms) => {
                let mut check =
                    |term: &Term| self.reward(task, &term.reward).map_err(|error| error.of(&format!("component {}", term.name)));
                terms.iter().try_for_each(&mut check)
            }
        }
    }

    /// That a model has a chat template if the table in `slot` asks by messages alone, and that the template does not fail.
    fn reads_messages(&mut self, checkpoint: &Checkpoint, task: &Task, slot: &str) -> Result<(), StageError> {
        let Some(input) = task.input(slot) else { return Ok(()) };
        let schema = self.table(input)?;
        let asks = |column: &str| schema.field_with_name(column).is_ok();
        if asks("messages") && !asks("prompt") && checkpoint.chat_template.is_none() {
            return Err(StageError::Input(format!(
                "{}: expected a chat template because {slot} are messages, found none; add chat_template.jinja, or give them as text",
                checkpoint.folder().display()
            )));
        }
        // A reward model reads plain prompts through its template too. Some templates refuse a conversation; that is for the rows to show.
        match checkpoint.encode_conversation(&Asked::Text("Hello.".to_string()), "Hello.") {
            Err(error @ ModelError::Chat(_)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The outside model that a model began as: it has the same tokenizer and chat template.
    fn base_model(&self, mut model: Input) -> Option<&'a Path> {
        loop {
            match self.graph.source(model).map(|source| &source.kind) {
                Some(SourceKind::Model { path }) => return Some(path),
                Some(_) => return None,
                None => model = self.graph.task(model)?.input("from")?,
            }
        }
    }

    /// A session with the task's named tables, empty.
    fn session(&mut self, task: &Task) -> Result<Session, StageError> {
        let session = Session::new()?;
        for input in task.inputs("tables") {
            let schema = self.table(input.input)?;
            let schema = if self.is_partitioned(input.input) { with_iteration(&schema) } else { schema };
            session.register_empty(&input.name, schema)?;
        }
        Ok(session)
    }

    /// Whether an input lies in a partition folder, whose `iteration` queries see as a column.
    fn is_partitioned(&self, input: Input) -> bool {
        self.graph.task(input).is_some_and(|task| task.iteration.is_some())
    }

    /// The columns of a table of prompts, its rows checked if it is an outside one.
    fn prompts(&mut self, input: Input) -> Result<SchemaRef, StageError> {
        let schema = self.table(input)?;
        // Outside tables were checked row by row, and got ids, when they were read.
        if let Input::Task(_) = input {
            if schema.field_with_name("prompt").is_err() && schema.field_with_name("messages").is_err() {
                return Err(StageError::Input(format!("expected a column prompt or messages, found {}", names(&schema))));
            }
            if schema.field_with_name("prompt_id").is_err() {
                // A table of the pipeline's own must have ids, for rewards to join by.
                return Err(StageError::Input("prompts made by a query: expected a column prompt_id, found none; select one".to_string()));
            }
        }
        Ok(schema)
    }

    /// Checks the columns of a table of preferences.
    fn preferences(&mut self, input: Input) -> Result<(), StageError> {
        let schema = self.table(input)?;
        let has = |name: &str| schema.field_with_name(name).is_ok();
        if !(has("prompt") || has("messages")) || !has("chosen") || !has("rejected") {
            let expected = "preferences: expected columns prompt or messages, chosen and rejected";
            return Err(StageError::Input(format!("{expected}, found {}", names(&schema))));
        }
        Ok(())
    }

    /// The columns of any table; the rows of an outside one are checked too.
    fn table(&mut self, input: Input) -> Result<SchemaRef, StageError> {
        let index = match input {
            Input::Task(index) => return Ok(self.tasks.get(index).cloned().unwrap_or_else(|| Arc::new(Schema::empty()))),
            Input::Source(index) => index,
        };
        if let Some(schema) = self.sources.get(&index) {
            return Ok(schema.clone());
        }
        let imported = import(self.graph, index)?;
        if let (Some(source), Some(shape)) = (self.graph.sources.get(index), imported.shape) {
            self.shapes.insert(source.name.clone(), shape);
        }
        let schema = imported.schema();
        if let (Some(source), Some(first)) = (self.graph.sources.get(index), imported.batches.first())
            && let Ok(prompts) = Prompts::read(&source.name, vec![first.slice(0, first.num_rows().min(PROMPTS_TRIED))])
        {
            self.asked.insert(index, prompts.iter().map(|prompt| prompt.asked.clone()).collect());
        }
        self.sources.insert(index, schema.clone());
        Ok(schema)
    }
}

/// The names of all columns, for an error.
fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

fn with_iteration(schema: &Schema) -> SchemaRef {
    let iteration = Arc::new(Field::new("iteration", DataType::Int32, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([iteration]).collect::<Vec<_>>()))
}
