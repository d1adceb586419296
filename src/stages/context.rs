//! What a stage is given: its task, its inputs by slot, and where its output goes.
//!
//! Knows how a slot becomes batches or a model directory, so that no stage has to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{Preferences, Progress, Prompts, StageError, adapters, seed, version};
use crate::compute::DeviceChoice;
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::model::{Checkpoint, Dtype};
use crate::pipeline::graph::{Graph, Input, Task};
use crate::pipeline::spec::operator::{Device, Output};
use crate::store::{PartWriter, Place, PlaceKind, RunLock, Session, TableWriter};
use crate::tables::{TableError, TableKind, training};

/// Memory of a session's sorts, in bytes, before they go on on disk.
const SORTING_BYTES: usize = 128 << 20;

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
        let name = format!("{}{}", self.name, training::SUFFIX);
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

    /// Whether an input is a table of the user's own, from outside or by a query.
    pub fn is_own_table(&self, input: Input) -> bool {
        self.table(input).is_ok_and(|(_, kind)| kind.is_none())
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

    /// A session for a query that the user wrote.
    pub fn query_session(&self) -> Result<Session, StageError> {
        Ok(Session::bounded()?)
    }

    /// A session for plans over tables of any length: what does not fit into its memory is sorted on disk, beside the run.
    pub fn spilling_session(&self) -> Result<Session, StageError> {
        Ok(Session::with_memory_limit(SORTING_BYTES, &self.run.temporary()?)?)
    }

    /// Offers the prompts in `slot`, checked, to the session's queries as `name`; how many there are.
    pub fn register_prompts(&self, session: &Session, name: &str, slot: &str) -> Result<usize, StageError> {
        let input = self.input(slot)?;
        if let Some(source) = self.graph.source(input) {
            // Outside tables have ids and were checked when they were brought in.
            let rows = self.run.manifest(&source.place())?.map_or(0, |manifest| manifest.rows());
            session.register_places(name, self.run, &[source.place()])?;
            return Ok(usize::try_from(rows).unwrap_or(usize::MAX));
        }
        let prompts = self.prompts(slot)?;
        let count = prompts.len();
        session.register_batches(name, prompts.batches)?;
        Ok(count)
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

    /// Whether this task's model is computed on the processor.
    pub fn on_processor(&self) -> Result<bool, StageError> {
        Ok(self.device()? == burn::tensor::Device::flex())
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

    /// Writes a table of `kind` as a whole: the rows that `make` hands over, in the table's order, with the counts that it gives at the end.
    /// Says how many rows it has.
    pub fn write_relation<const N: usize>(
        &self,
        kind: TableKind,
        make: impl FnOnce(&mut Relation) -> Result<[(&'static str, i64); N], StageError>,
    ) -> Result<i64, StageError> {
        self.write_whole(Some(kind), kind.schema(), |relation| {
            Ok(make(relation)?.into_iter().map(|(name, count)| (name.to_string(), count)).collect())
        })
    }

    /// Writes a table of the user's own, the rows of a query. Says how many rows it has.
    pub fn write_query_result(&self, session: &Session, query: &str) -> Result<i64, StageError> {
        self.write_whole(None, session.schema_of(query)?, |relation| {
            session.rows(query)?.try_for_each(|batch| relation.write(&batch?))?;
            Ok(BTreeMap::from([("rows".to_string(), relation.rows())]))
        })
    }

    /// One part, which is begun with the first row: the rows of what it is made from are not counted.
    fn write_whole(
        &self,
        kind: Option<TableKind>,
        schema: SchemaRef,
        make: impl FnOnce(&mut Relation) -> Result<BTreeMap<String, i64>, StageError>,
    ) -> Result<i64, StageError> {
        let mut writer = self.run.write_table(&self.task.place(), self.recipe, kind, 0, 1)?;
        let part = writer.begin(0, &schema)?;
        let mut relation = Relation { kind, schema, part, rows: 0, stopped: self.stopped };
        let counts = make(&mut relation)?;
        let rows = relation.rows;
        if let Some(part) = relation.part {
            part.commit()?;
        }
        writer.finish(counts)?;
        Ok(rows)
    }
}

/// A table in the making, whose rows come batch by batch.
pub struct Relation<'w, 'a> {
    kind: Option<TableKind>,
    schema: SchemaRef,
    /// None if the rows are on disk already, and only counted once more.
    part: Option<PartWriter<'w, 'a>>,
    rows: i64,
    stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Relation<'_, '_> {
    /// Appends rows, after a look at whether the run was asked to stop.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), StageError> {
        if (self.stopped)() {
            return Err(StageError::Stopped);
        }
        self.rows += batch.num_rows() as i64;
        let Some(part) = &mut self.part else { return Ok(()) };
        let batch = match self.kind {
            Some(kind) => kind.conform(batch)?,
            None => RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?,
        };
        Ok(part.write(&batch)?)
    }

    /// How many rows there are so far.
    pub fn rows(&self) -> i64 {
        self.rows
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
