//! The inputs and output of one operator: its task, its inputs by slot, and the place of its
//! output.
//!
//! Turns a slot into batches or a model directory, so that no operator has to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::device_time::DeviceTime;
use super::executors::Executors;
use super::model_folders::ModelFolders;
use super::{OperatorError, Progress, lora, rng};
use crate::compute::{DeviceChoice, Precision};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::import::{Preferences, Prompts, Repeats};
use crate::model::{Checkpoint, Dtype};
use crate::operators::version;
use crate::pipeline;
use crate::pipeline::graph::{Binding, Graph, Input, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::devices::Devices;
use crate::pipeline::spec::operator::Output;
use crate::pipeline::spec::resources::Device;
use crate::sql::Session;
use crate::store::{OutputKey, OutputKind, PartWriter, RunLock, TableWriter};
use crate::tables::{TableError, TableKind, training};

/// Memory for the sorts of a session, in bytes; larger sorts go on on disk.
const SORTING_BYTES: usize = 128 << 20;

/// This module in internal errors.
const PLACE: &str = "operators::support::context";

/// Everything an operator may know.
pub struct Context<'a> {
    /// The locked run; the operator reads and writes its folder.
    pub run: &'a RunLock,
    /// The whole graph, to find inputs in.
    pub graph: &'a Graph,
    /// The task to do.
    pub task: &'a Task,
    /// The recipe of the output; its fingerprint names the output.
    pub recipe: &'a Recipe,
    /// The devices for the model, one for each replica.
    pub device: DeviceChoice,
    /// Whether the run was asked to stop. Operators call it between parts and steps.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
    /// The observer of the run.
    pub progress: &'a dyn Progress,
    /// The time of the model's computations.
    pub device_time: DeviceTime,
    /// Where the parts of its models' work are computed instead of here, if anywhere.
    pub executors: Option<&'a dyn Executors>,
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

/// The recipe of a model's training table: the model is its only input.
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
    /// The key of the task's output in a run folder.
    pub fn output_key(&self) -> OutputKey {
        let kind = if self.makes_model() { OutputKind::Model } else { OutputKind::Table };
        OutputKey { kind, name: self.name.clone(), iteration: self.iteration }
    }

    /// Whether its output is a folder with a checkpoint: a model, or a reward model of the
    /// pipeline's own.
    fn makes_model(&self) -> bool {
        matches!(self.output(), Output::Model | Output::Reward)
    }

    /// The key of a model's training table, `<name>_training`. None for other tasks, and for the
    /// model of a program.
    pub fn training_key(&self) -> Option<OutputKey> {
        let name = format!("{}{}", self.name, training::SUFFIX);
        self.operator.optimizer().is_some().then_some(OutputKey { kind: OutputKind::Table, name, iteration: self.iteration })
    }

    /// The task for people: `responses[2]`.
    pub fn label(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}[{iteration}]", self.name),
            None => self.name.clone(),
        }
    }

    /// The fixed schema of its table; none for models and for a user's own table.
    pub fn table_kind(&self) -> Option<TableKind> {
        let name = self.output().table_kind()?;
        let kind: Option<TableKind> = name.parse().ok();
        debug_assert!(kind.is_some(), "no fixed schema has the name {name}");
        kind
    }
}

impl Context<'_> {
    /// The random numbers of this task.
    pub fn seed(&self) -> rng::Stream {
        rng::Stream { seed: self.graph.seed, iteration: self.task.iteration.unwrap_or(0) }
    }

    /// The iteration for the column `sampled_iteration` of responses sampled here; 0 outside the
    /// loop.
    ///
    /// # Errors
    /// An internal error for an iteration above the largest Int32.
    pub fn sampled_iteration(&self) -> Result<i32, OperatorError> {
        let iteration = self.task.iteration.unwrap_or(0);
        i32::try_from(iteration).map_err(|_| OperatorError::internal(PLACE, format!("iteration {iteration} of {}", self.task.label())))
    }

    /// Fails when the run was asked to stop.
    pub fn check_stopped(&self) -> Result<(), OperatorError> {
        if (self.stopped)() { Err(OperatorError::Stopped) } else { Ok(()) }
    }

    /// Runs a computation of the model, and counts its time.
    pub fn on_device<T>(&self, work: impl FnOnce() -> T) -> T {
        self.device_time.measure(work)
    }

    /// Whether `slot` is filled.
    pub fn has(&self, slot: Slot) -> bool {
        self.task.input(slot).is_some()
    }

    /// The first binding of `slot`. The checked graph fills every slot of an operator.
    fn binding(&self, slot: Slot) -> Result<&Binding, OperatorError> {
        let problem = || OperatorError::internal(PLACE, format!("{}: nothing fills its input {slot}", self.task.label()));
        self.task.inputs(slot).next().ok_or_else(problem)
    }

    fn input(&self, slot: Slot) -> Result<Input, OperatorError> {
        Ok(self.binding(slot)?.input)
    }

    /// The fingerprint of the first input in `slot`.
    pub fn fingerprint_of(&self, slot: Slot) -> Result<Fingerprint, OperatorError> {
        let found = self.recipe.inputs.get(slot.name()).and_then(|fingerprints| fingerprints.first());
        let problem = || OperatorError::internal(PLACE, format!("{}: no fingerprint of its input {slot}", self.task.label()));
        found.cloned().ok_or_else(problem)
    }

    /// The batches of the table in `slot`.
    pub fn batches(&self, slot: Slot) -> Result<Vec<RecordBatch>, OperatorError> {
        self.read(self.input(slot)?)
    }

    /// The batches of any input table.
    pub fn batches_of(&self, input: Input) -> Result<Vec<RecordBatch>, OperatorError> {
        self.read(input)
    }

    fn read(&self, input: Input) -> Result<Vec<RecordBatch>, OperatorError> {
        let (key, kind) = self.table(input)?;
        Ok(self.run.read_table(&key, kind)?)
    }

    /// The key of an input table, and its fixed schema if it has one.
    fn table(&self, input: Input) -> Result<(OutputKey, Option<TableKind>), OperatorError> {
        match (self.graph.source(input), self.graph.task(input)) {
            (Some(source), _) => Ok((source.output_key(), None)),
            (_, Some(task)) => Ok((task.output_key(), task.table_kind())),
            (None, None) => Err(OperatorError::internal(PLACE, format!("{}: its input {input:?} does not exist", self.task.label()))),
        }
    }

    /// Whether an input is a table of the user's own: from outside or by a query.
    pub fn is_own_table(&self, input: Input) -> Result<bool, OperatorError> {
        Ok(self.table(input)?.1.is_none())
    }

    /// The rows of all tables in `slot`, read by that table's `rows`.
    pub fn rows<R>(&self, slot: Slot, rows: impl Fn(&RecordBatch) -> Result<Vec<R>, TableError>) -> Result<Vec<R>, OperatorError> {
        let mut all = Vec::new();
        for input in self.task.inputs(slot) {
            for batch in self.read(input.input)? {
                all.extend(rows(&batch)?);
            }
        }
        Ok(all)
    }

    /// The prompts in `slot`, checked.
    pub fn prompts(&self, slot: Slot) -> Result<Prompts, OperatorError> {
        // Only demonstrations are read by nothing but their own node.
        let repeats = if slot == Slot::Demonstrations { Repeats::Number } else { Repeats::Refuse };
        Ok(Prompts::from_batches(&self.binding(slot)?.name, repeats, self.batches(slot)?)?)
    }

    /// The preferences in `slot`, checked.
    pub fn preferences(&self, slot: Slot) -> Result<Preferences, OperatorError> {
        Ok(Preferences::from_batches(&self.binding(slot)?.name, self.batches(slot)?)?)
    }

    /// The directory of the model in `slot`.
    pub fn model(&self, slot: Slot) -> Result<PathBuf, OperatorError> {
        lora::folder(self.run, self.graph, self.input(slot)?)
    }

    /// The directory of the model made by the task at `index` of the graph's tasks.
    pub fn model_of_task(&self, index: usize) -> Result<PathBuf, OperatorError> {
        lora::folder(self.run, self.graph, Input::Task(index))
    }

    /// The folders of the model in `slot`, for another process.
    pub fn model_folders(&self, slot: Slot) -> Result<ModelFolders, OperatorError> {
        lora::folders(self.run, self.graph, self.input(slot)?)
    }

    /// The model in `slot`, opened but not loaded; an adapter comes with its base. Its chat
    /// template has the pipeline's settings.
    pub fn checkpoint(&self, slot: Slot) -> Result<Checkpoint, OperatorError> {
        Ok(lora::open(self.run, self.graph, self.input(slot)?)?.with_template_settings(self.task.template_settings()))
    }

    /// The directory of the model in `slot` for other software without support for adapters on a
    /// base. Of an adapter it is a merged copy; the next lock of the run removes it.
    pub fn whole_model(&self, slot: Slot) -> Result<PathBuf, OperatorError> {
        let checkpoint = self.checkpoint(slot)?;
        if checkpoint.adapter().is_none() {
            return self.model(slot);
        }
        let folder = self.run.temporary()?;
        checkpoint.export(&folder, Dtype::F32, u64::MAX)?;
        Ok(folder)
    }

    /// A session for this operator's plans.
    pub fn session(&self) -> Result<Session, OperatorError> {
        Ok(Session::new()?)
    }

    /// A session for a query written by the user.
    pub fn query_session(&self) -> Result<Session, OperatorError> {
        Ok(Session::bounded()?)
    }

    /// A session for plans over tables of any length. Sorts beyond its memory go on on disk, beside
    /// the run.
    pub fn spilling_session(&self) -> Result<Session, OperatorError> {
        Ok(Session::with_memory_limit(SORTING_BYTES, &self.run.temporary()?)?)
    }

    /// Offers the prompts in `slot`, checked, to the session's queries as `name`. Returns their
    /// number.
    pub fn register_prompts(&self, session: &Session, name: &str, slot: Slot) -> Result<usize, OperatorError> {
        let input = self.input(slot)?;
        if let Some(source) = self.graph.source(input) {
            // The import checked outside tables and gave them ids.
            let key = source.output_key();
            let problem = |found: &str| OperatorError::internal(PLACE, format!("imported table {}: {found}", source.name));
            let manifest = self.run.manifest(&key)?.ok_or_else(|| problem("no manifest"))?;
            session.register_outputs(name, self.run, &[key])?;
            return usize::try_from(manifest.rows()).map_err(|_| problem("more rows than memory has addresses"));
        }
        let prompts = self.prompts(slot)?;
        let count = prompts.len();
        session.register_batches(name, prompts.batches)?;
        Ok(count)
    }

    /// Offers all tables in `slot`, one after the other, to the session's queries as `name`.
    pub fn register(&self, session: &Session, name: &str, slot: Slot) -> Result<(), OperatorError> {
        let keys: Vec<OutputKey> =
            self.task.inputs(slot).map(|input| Ok(self.table(input.input)?.0)).collect::<Result<_, OperatorError>>()?;
        Ok(session.register_outputs(name, self.run, &keys)?)
    }

    /// Offers every table in `slot` under its name in the query.
    pub fn register_named(&self, session: &Session, slot: Slot) -> Result<(), OperatorError> {
        for input in self.task.inputs(slot) {
            session.register_outputs(&input.name, self.run, &[self.table(input.input)?.0])?;
        }
        Ok(())
    }

    /// Whether this task's model runs on the CPU.
    pub fn on_cpu(&self) -> Result<bool, OperatorError> {
        // An executor's GPU need not be one of this machine.
        if self.executors.is_some() && self.device.is_gpu() {
            return Ok(false);
        }
        Ok(self.device()? == burn::tensor::Device::flex())
    }

    /// The device of this task's model; of several replicas, the first one's.
    pub fn device(&self) -> Result<burn::tensor::Device, OperatorError> {
        Ok(self.device.resolve()?)
    }

    /// The precision of this task's models.
    pub fn precision(&self) -> Precision {
        match self.task.precision {
            pipeline::Precision::F32 => Precision::F32,
            pipeline::Precision::Bf16 => Precision::Bf16,
        }
    }

    /// The writer of this task's table: `total` input rows in parts of `rows_per_part`, unless its
    /// resources set another size.
    pub fn writer(&self, kind: Option<TableKind>, total: usize, rows_per_part: usize) -> Result<TableWriter<'_>, OperatorError> {
        let rows_per_part = self.task.resources.rows_per_part.map_or(rows_per_part, |rows| rows as usize);
        let writer = self.run.write_table(&self.task.output_key(), self.recipe, kind, total, rows_per_part)?;
        for bad in writer.quarantined() {
            self.progress.warned(&self.task.label(), &bad.to_string());
        }
        Ok(writer)
    }

    /// Writes a table of `kind` as a whole. `make` writes the rows in the table's order and returns
    /// the counts for the manifest. Returns the number of rows.
    pub fn write_relation<const N: usize>(
        &self,
        kind: TableKind,
        make: impl FnOnce(&mut Relation) -> Result<[(&'static str, i64); N], OperatorError>,
    ) -> Result<i64, OperatorError> {
        self.write_whole(Some(kind), kind.schema(), |relation| {
            Ok(make(relation)?.into_iter().map(|(name, count)| (name.to_string(), count)).collect())
        })
    }

    /// Writes a table of the user's own, the rows of a query. Returns the number of rows.
    pub fn write_query_result(&self, session: &Session, query: &str) -> Result<i64, OperatorError> {
        self.write_whole(None, session.schema_of(query)?, |relation| {
            session.rows(query)?.try_for_each(|batch| relation.write(&batch?))?;
            Ok(BTreeMap::from([("rows".to_string(), relation.rows())]))
        })
    }

    /// Writes a table of the user's own from its rows. Returns their number.
    pub fn write_own_table(&self, schema: SchemaRef, batches: &[RecordBatch]) -> Result<i64, OperatorError> {
        self.write_whole(None, schema, |relation| {
            batches.iter().try_for_each(|batch| relation.write(batch))?;
            Ok(BTreeMap::from([("rows".to_string(), relation.rows())]))
        })
    }

    /// Writes one part, begun before the first row; the number of input rows stays unknown.
    fn write_whole(
        &self,
        kind: Option<TableKind>,
        schema: SchemaRef,
        make: impl FnOnce(&mut Relation) -> Result<BTreeMap<String, i64>, OperatorError>,
    ) -> Result<i64, OperatorError> {
        let mut writer = self.run.write_table(&self.task.output_key(), self.recipe, kind, 0, 1)?;
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

/// A table in the making; its rows come batch by batch.
pub struct Relation<'w, 'a> {
    kind: Option<TableKind>,
    schema: SchemaRef,
    /// None if the rows are on disk already; then they are only counted.
    part: Option<PartWriter<'w, 'a>>,
    rows: i64,
    stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Relation<'_, '_> {
    /// Appends rows, unless the run was asked to stop.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), OperatorError> {
        if (self.stopped)() {
            return Err(OperatorError::Stopped);
        }
        self.rows += batch.num_rows() as i64;
        let Some(part) = &mut self.part else { return Ok(()) };
        let batch = match self.kind {
            Some(kind) => kind.conform(batch)?,
            None => RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?,
        };
        Ok(part.write(&batch)?)
    }

    /// The number of rows so far.
    pub fn rows(&self) -> i64 {
        self.rows
    }
}

/// The devices chosen in the pipeline file.
pub fn device_choice(task: &Task) -> DeviceChoice {
    match (&task.resources.devices, task.resources.device) {
        (Some(devices), _) => devices_choice(devices),
        (None, Device::Auto) => DeviceChoice::Auto,
        (None, Device::Cpu) => DeviceChoice::Cpu,
        (None, Device::Cuda) => DeviceChoice::Cuda,
    }
}

/// The devices of a list.
pub fn devices_choice(devices: &Devices) -> DeviceChoice {
    match devices {
        Devices::Cpu(replicas) => DeviceChoice::Cpus(*replicas as usize),
        Devices::Cuda(gpus) => DeviceChoice::Gpus(gpus.clone()),
    }
}
