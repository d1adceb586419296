//! What a stage is given: its task, its inputs by slot, and where its output goes.
//!
//! Knows how a slot becomes batches or a model directory, so that no stage has to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::RecordBatch;

use super::{Preferences, Progress, Prompts, StageError, adapters, seed, version};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::model::{Checkpoint, DeviceChoice, Dtype};
use crate::pipeline::graph::{Graph, Input, Task};
use crate::pipeline::spec::operator::{Device, Output};
use crate::store::{Place, PlaceKind, RunLock, Session, TableWriter};
use crate::tables::{TableError, TableKind};

/// Everything a stage may know.
pub struct Context<'a> {
    /// The run whose folder it reads and writes, locked.
    pub run: &'a RunLock,
    /// The whole graph, to find inputs in.
    pub graph: &'a Graph,
    /// What is to be done.
    pub task: &'a Task,
    /// What the output is made of; its fingerprint names the output.
    pub recipe: &'a Recipe,
    /// The device for the model.
    pub device: DeviceChoice,
    /// Whether the run was asked to stop; asked between parts and steps.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// The recipe of a task whose inputs have these fingerprints, by slot.
pub fn recipe(graph: &Graph, task: &Task, inputs: BTreeMap<String, Vec<Fingerprint>>) -> Recipe {
    Recipe {
        operator: task.operator.name().to_string(),
        version: version(&task.operator),
        seed: task.operator.draws().then_some((graph.seed, task.iteration.unwrap_or(0))),
        settings: task.settings.clone(),
        inputs,
    }
}

/// The recipe of the training table that comes with a model: whatever made the model made it.
pub fn training_recipe(model: &Recipe) -> Recipe {
    Recipe {
        operator: "training".to_string(),
        version: 1,
        seed: None,
        settings: BTreeMap::new(),
        inputs: BTreeMap::from([("model".to_string(), vec![model.fingerprint()])]),
    }
}

impl Task {
    /// Where the task's output lies in a run folder.
    pub fn place(&self) -> Place {
        let kind = if self.makes_model() { PlaceKind::Model } else { PlaceKind::Table };
        Place { kind, name: self.name.clone(), iteration: self.iteration }
    }

    /// Whether its output is a folder with a checkpoint: a model, or a reward that the pipeline makes itself.
    fn makes_model(&self) -> bool {
        matches!(self.output(), Output::Model | Output::Reward)
    }

    /// Where a model's training table lies: `<name>_training`. Nothing for tasks that make no model.
    pub fn training_place(&self) -> Option<Place> {
        let name = format!("{}_training", self.name);
        self.makes_model().then_some(Place { kind: PlaceKind::Table, name, iteration: self.iteration })
    }

    /// The task for people: `responses[2]`.
    pub fn label(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}[{iteration}]", self.name),
            None => self.name.clone(),
        }
    }

    /// The fixed schema of the table it makes; none for models and for a user's own table.
    pub fn table_kind(&self) -> Option<TableKind> {
        self.output().table_kind().and_then(|name| name.parse().ok())
    }
}

impl Context<'_> {
    /// The random numbers of this task.
    pub fn seed(&self) -> seed::Stream {
        seed::Stream { seed: self.graph.seed, iteration: self.task.iteration.unwrap_or(0) }
    }

    /// The iteration that responses made here are born in; 0 outside the loop.
    pub fn born(&self) -> i32 {
        self.task.iteration.and_then(|iteration| i32::try_from(iteration).ok()).unwrap_or(0)
    }

    /// Fails when the run was asked to stop.
    pub fn check_stopped(&self) -> Result<(), StageError> {
        if (self.stopped)() { Err(StageError::Stopped) } else { Ok(()) }
    }

    /// Whether anything fills `slot`.
    pub fn has(&self, slot: &str) -> bool {
        self.task.input(slot).is_some()
    }

    fn input(&self, slot: &str) -> Result<Input, StageError> {
        // The checked graph fills every slot a stage asks for; an error all the same, not a panic.
        self.task.input(slot).ok_or_else(|| StageError::Input(format!("{}: nothing fills its input {slot}", self.task.label())))
    }

    /// The fingerprint of what fills `slot`.
    pub fn fingerprint_of(&self, slot: &str) -> Result<Fingerprint, StageError> {
        let found = self.recipe.inputs.get(slot).and_then(|fingerprints| fingerprints.first());
        found.cloned().ok_or_else(|| StageError::Input(format!("nothing fills the input {slot}")))
    }

    /// The batches of the table in `slot`.
    pub fn batches(&self, slot: &str) -> Result<Vec<RecordBatch>, StageError> {
        self.read(self.input(slot)?)
    }

    fn read(&self, input: Input) -> Result<Vec<RecordBatch>, StageError> {
        let (place, kind) = self.table(input)?;
        Ok(self.run.read_table(&place, kind)?)
    }

    /// Where an input table lies in the run folder, and its fixed schema if it has one.
    fn table(&self, input: Input) -> Result<(Place, Option<TableKind>), StageError> {
        match (self.graph.source(input), self.graph.task(input)) {
            (Some(source), _) => Ok((source.place(), None)),
            (_, Some(task)) => Ok((task.place(), task.table_kind())),
            (None, None) => Err(StageError::Input(format!("{}: an input does not exist", self.task.label()))),
        }
    }

    /// The rows of all tables in `slot`, read by that table's `rows`.
    pub fn rows<R>(&self, slot: &str, rows: impl Fn(&RecordBatch) -> Result<Vec<R>, TableError>) -> Result<Vec<R>, StageError> {
        let mut all = Vec::new();
        for input in self.task.inputs(slot) {
            for batch in self.read(input.input)? {
                all.extend(rows(&batch)?);
            }
        }
        Ok(all)
    }

    /// The prompts in `slot`, checked.
    pub fn prompts(&self, slot: &str) -> Result<Prompts, StageError> {
        let name = self.task.inputs(slot).next().map(|input| input.name.clone()).unwrap_or_default();
        Prompts::read(&name, self.batches(slot)?)
    }

    /// The preferences in `slot`, checked.
    pub fn preferences(&self, slot: &str) -> Result<Preferences, StageError> {
        let name = self.task.inputs(slot).next().map(|input| input.name.clone()).unwrap_or_default();
        Preferences::read(&name, self.batches(slot)?)
    }

    /// The directory of the model in `slot`.
    pub fn model(&self, slot: &str) -> Result<PathBuf, StageError> {
        adapters::folder(self.run, self.graph, self.input(slot)?)
    }

    /// The model in `slot`, opened but not loaded; an adapter comes with its base. Its chat template writes the pipeline's date.
    pub fn checkpoint(&self, slot: &str) -> Result<Checkpoint, StageError> {
        Ok(adapters::open(self.run, self.graph, self.input(slot)?)?.with_date(self.task.date()))
    }

    /// The directory of the model in `slot` for other software that does not know bases: of an adapter, a merged copy, which is gone when
    /// the run is locked again.
    pub fn whole_model(&self, slot: &str) -> Result<PathBuf, StageError> {
        let checkpoint = self.checkpoint(slot)?;
        if checkpoint.adapter().is_none() {
            return self.model(slot);
        }
        let folder = self.run.temporary()?;
        checkpoint.export(&folder, Dtype::F32, u64::MAX)?;
        Ok(folder)
    }

    /// A session for this stage's plans.
    pub fn session(&self) -> Result<Session, StageError> {
        Ok(Session::new()?)
    }

    /// Offers all tables in `slot`, one after the other, to the session's queries as `name`.
    pub fn register(&self, session: &Session, name: &str, slot: &str) -> Result<(), StageError> {
        let places: Vec<Place> = self.task.inputs(slot).map(|input| Ok(self.table(input.input)?.0)).collect::<Result<_, StageError>>()?;
        Ok(session.register_places(name, self.run, &places)?)
    }

    /// Offers every table in `slot` under the name that the query has for it.
    pub fn register_named(&self, session: &Session, slot: &str) -> Result<(), StageError> {
        for input in self.task.inputs(slot) {
            session.register_places(&input.name, self.run, &[self.table(input.input)?.0])?;
        }
        Ok(())
    }

    /// The device of this task's model.
    pub fn device(&self) -> Result<burn::tensor::Device, StageError> {
        Ok(self.device.resolve()?)
    }

    /// The writer of this task's table, `total` input rows in parts of `rows_per_part` (unless its resources say otherwise).
    pub fn writer(&self, kind: Option<TableKind>, total: usize, rows_per_part: usize) -> Result<TableWriter<'_>, StageError> {
        let rows_per_part = self.task.resources.rows_per_part.map_or(rows_per_part, |rows| rows as usize);
        let writer = self.run.write_table(&self.task.place(), self.recipe, kind, total, rows_per_part)?;
        for bad in writer.quarantined() {
            self.progress.warned(&self.task.label(), &bad.to_string());
        }
        Ok(writer)
    }

    /// Writes a whole table at once: the rows of a plan, as one part with this table's schema.
    pub fn write_relation<const N: usize>(
        &self,
        kind: TableKind,
        batches: &[RecordBatch],
        counts: [(&str, i64); N],
    ) -> Result<(), StageError> {
        let batches = batches.iter().map(|batch| kind.conform(batch)).collect::<Result<Vec<_>, _>>()?;
        let whole = arrow::compute::concat_batches(&kind.schema(), &batches)?;
        self.write_whole(Some(kind), &whole, counts.into_iter().map(|(name, count)| (name.to_string(), count)).collect())
    }

    /// Writes a whole table of the user's own.
    pub fn write_query_result(&self, schema: arrow::datatypes::SchemaRef, batches: &[RecordBatch]) -> Result<(), StageError> {
        let whole = arrow::compute::concat_batches(&schema, batches)?;
        self.write_whole(None, &whole, BTreeMap::from([("rows".to_string(), whole.num_rows() as i64)]))
    }

    fn write_whole(&self, kind: Option<TableKind>, whole: &RecordBatch, counts: BTreeMap<String, i64>) -> Result<(), StageError> {
        let total = whole.num_rows();
        let mut writer = self.run.write_table(&self.task.place(), self.recipe, kind, total, total.max(1))?;
        for part in writer.missing() {
            writer.commit(part, whole)?;
        }
        writer.finish(counts)?;
        Ok(())
    }
}

/// The device that the pipeline file asks for.
pub fn device_choice(task: &Task) -> DeviceChoice {
    match task.resources.device {
        Device::Auto => DeviceChoice::Auto,
        Device::Cpu => DeviceChoice::Cpu,
        Device::Cuda => DeviceChoice::Cuda,
    }
}
