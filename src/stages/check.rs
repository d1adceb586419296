//! What can be found out before anything heavy is loaded: columns, ids, model directories, queries, devices.
//!
//! Follows the graph once with schemas instead of rows, so that a query that names a wrong column fails now and not in an hour.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::input::read as read_source;
use super::reward::{ModelAt, Reward, Term};
use super::{Preferences, Prompts, StageError, device_choice, score};
use crate::model::{Checkpoint, DeviceChoice, Head};
use crate::pipeline::graph::{Graph, Input, SourceKind, Task};
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::training::Initialize;
use crate::store::Session;
use crate::tables::TableKind;

/// Checks the graph's inputs and queries; `device` overrides that of every node.
///
/// # Errors
/// The first thing found wrong, with the file, table, row or column, and the node's line in the pipeline file.
pub fn check(graph: &Graph, device: Option<DeviceChoice>) -> Result<(), StageError> {
    let mut known = Known { graph, sources: HashMap::new(), tasks: Vec::new() };
    for task in &graph.tasks {
        // Iterations differ in their inputs only where t = 1 starts; the second one shows all there is to see.
        let schema = known.check(task, device).map_err(|error| match error {
            error if error.is_input() => StageError::Input(format!("line {}: {}: {error}", task.line, task.label())),
            other => other,
        })?;
        known.tasks.push(schema);
    }
    Ok(())
}

/// The schemas of what was checked so far.
struct Known<'a> {
    graph: &'a Graph,
    sources: HashMap<(usize, bool), SchemaRef>,
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
                    let found = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
                    return Err(StageError::Input(format!(
                        "demonstrations: expected a column {}, found {found}; name it with `response:`",
                        settings.response
                    )));
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
                        Operator::RewardModel(_) => self.reads_messages(&Checkpoint::open(path)?, task, "preferences")?,
                        _ => Checkpoint::open(path)?.expect(Head::CausalLm)?,
                    };
                }
            }
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
                let checkpoint = Checkpoint::open(path)?;
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

    /// That a model has a chat template if the table in `slot` asks by messages alone.
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
        Ok(())
    }

    /// Checks a table of preferences, its rows too if it is an outside one.
    fn preferences(&mut self, input: Input) -> Result<(), StageError> {
        if let Input::Source(index) = input {
            let source = &self.graph.sources[index];
            return Preferences::read(&source.name, read_source(source)?).map(drop);
        }
        let schema = self.table(input)?;
        let has = |column: &str| schema.field_with_name(column).is_ok();
        if has("chosen") && has("rejected") && (has("prompt") || has("messages")) {
            return Ok(());
        }
        let found = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        Err(StageError::Input(format!("preferences: expected columns prompt or messages, chosen and rejected, found {found}")))
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
        let Input::Source(index) = input else {
            let schema = self.table(input)?;
            if schema.field_with_name("prompt").is_err() && schema.field_with_name("messages").is_err() {
                let found = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
                return Err(StageError::Input(format!("expected a column prompt or messages, found {found}")));
            }
            if schema.field_with_name("prompt_id").is_err() {
                // Outside tables get ids when they are brought in; a table of the pipeline's own must have them, for rewards to join by.
                return Err(StageError::Input("prompts made by a query: expected a column prompt_id, found none; select one".to_string()));
            }
            return Ok(schema);
        };
        if let Some(schema) = self.sources.get(&(index, true)) {
            return Ok(schema.clone());
        }
        let source = &self.graph.sources[index];
        let prompts = Prompts::read(&source.name, read_source(source)?)?;
        let schema = prompts.batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema());
        self.sources.insert((index, true), schema.clone());
        Ok(schema)
    }

    /// The columns of any table.
    fn table(&mut self, input: Input) -> Result<SchemaRef, StageError> {
        let index = match input {
            Input::Task(index) => return Ok(self.tasks.get(index).cloned().unwrap_or_else(|| Arc::new(Schema::empty()))),
            Input::Source(index) => index,
        };
        if let Some(schema) = self.sources.get(&(index, false)) {
            return Ok(schema.clone());
        }
        let batches = read_source(&self.graph.sources[index])?;
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema());
        self.sources.insert((index, false), schema.clone());
        Ok(schema)
    }
}

fn with_iteration(schema: &Schema) -> SchemaRef {
    let iteration = Arc::new(Field::new("iteration", DataType::Int32, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([iteration]).collect::<Vec<_>>()))
}
