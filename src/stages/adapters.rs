//! Models that are adapters: their bases by lineage, what is found wrong with them before a run, how they are trained and kept.
//!
//! A task with `lora` makes an adapter and no model of its own. Its base is what the task trained from, or where that is an adapter too,
//! the base of that one: an adapter that starts from an adapter goes on with it, so that one adapter ever stands on a base.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::{Context, StageError};
use crate::compute::CausalLm;
use crate::model::{self, AdapterConfig, Checkpoint};
use crate::pipeline::graph::{Graph, Input, SourceKind, Task};
use crate::pipeline::spec::lora::{Lora, Targets};
use crate::store::Run;

/// The model that `input` is, opened but not loaded; an adapter with the base that it stands on.
///
/// # Errors
/// A model that is not finished, or files that are not what they should be.
pub fn open(run: &Run, graph: &Graph, input: Input) -> Result<Checkpoint, StageError> {
    let base = base(graph, input);
    let checkpoint = Checkpoint::open(&folder(run, graph, base)?)?;
    if base == input { Ok(checkpoint) } else { Ok(checkpoint.with_adapter(&folder(run, graph, input)?)?) }
}

/// Where the base of the adapter that `input` is lies: as written in the pipeline file, or from the root when a task made it. Nothing for
/// a model that is no adapter.
///
/// # Errors
/// A base that is not there.
pub fn base_folder(run: &Run, graph: &Graph, input: Input) -> Result<Option<PathBuf>, StageError> {
    let base = base(graph, input);
    let folder = folder(run, graph, base)?;
    match graph.source(base) {
        Some(_) => Ok(model::base_of(&folder)?.or((base != input).then_some(folder))),
        None if base == input => Ok(None),
        None => Ok(Some(std::path::absolute(&folder).unwrap_or(folder))),
    }
}

/// What a task reads: its inputs, and the bases of those that are adapters.
pub fn needs<'a>(graph: &'a Graph, task: &'a Task) -> impl Iterator<Item = Input> + 'a {
    task.inputs.iter().flat_map(|slot| [Some(slot.input), Some(base(graph, slot.input)).filter(|base| *base != slot.input)]).flatten()
}

/// The first model behind `input` that no task made as an adapter.
fn base(graph: &Graph, mut input: Input) -> Input {
    while let Some(from) = graph.task(input).filter(|task| task.operator.lora().is_some()).and_then(|task| task.input("from")) {
        input = from;
    }
    input
}

/// The directory of a model, whatever is in it.
pub(super) fn folder(run: &Run, graph: &Graph, input: Input) -> Result<PathBuf, StageError> {
    match (graph.source(input).map(|source| &source.kind), graph.task(input)) {
        (Some(SourceKind::Model { path }), _) => Ok(path.clone()),
        (_, Some(task)) => Ok(run.model_dir(&task.place())?),
        _ => Err(StageError::Input("expected a model, found another input".to_string())),
    }
}

/// Checks that a task's adapter fits the model it starts from, and goes on with that one's adapter where it has one.
///
/// # Errors
/// A target that the model has not, or an adapter of another rank, alpha or other targets.
pub(super) fn check(graph: &Graph, task: &Task) -> Result<(), StageError> {
    let (Some(lora), Some(from)) = (task.operator.lora(), task.input("from")) else { return Ok(()) };
    let Some(architecture) = architecture(graph, from)? else { return Ok(()) };
    let projections = architecture.projections();
    if let Targets::Named(named) = &lora.targets
        && let Some(missing) = named.iter().find(|target| !projections.iter().any(|projection| projection == target.name()))
    {
        let found = projections.join(", ");
        return Err(StageError::Input(format!("lora: expected targets that the model has, which are {found}; found {}", missing.name())));
    }
    let earlier = match graph.task(from) {
        Some(earlier) => earlier.operator.lora().map(|lora| (earlier.label(), config(lora, &architecture))),
        None => graph.source(from).and_then(|source| Some((source.name.clone(), architecture.adapter()?.clone()))),
    };
    match earlier {
        Some((name, earlier)) if !architecture.same_adapter(&earlier, &config(lora, &architecture)) => {
            let AdapterConfig { rank, alpha, targets, .. } = earlier;
            Err(StageError::Input(format!(
                "lora: it starts from the adapter {name} and goes on with it, so expected rank {rank}, alpha {alpha} and targets {}; \
                 give both the same, or train one of them without `lora`",
                targets.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

/// The outside model that everything behind `input` was trained from.
fn architecture(graph: &Graph, mut input: Input) -> Result<Option<Checkpoint>, StageError> {
    while let Some(from) = graph.task(input).and_then(|task| task.input("from")) {
        input = from;
    }
    match graph.source(input).map(|source| &source.kind) {
        // Without weights it is what `sft` initialises a model from.
        Some(SourceKind::Model { path }) if model::base_of(path)?.is_none() => Ok(Some(Checkpoint::open_blank(path)?)),
        Some(SourceKind::Model { path }) => Ok(Some(Checkpoint::open(path)?)),
        _ => Ok(None),
    }
}

fn config(lora: &Lora, checkpoint: &Checkpoint) -> AdapterConfig {
    let targets = match &lora.targets {
        Targets::AllLinear => checkpoint.projections(),
        Targets::Named(named) => named.iter().map(|target| target.name().to_string()).collect(),
    };
    AdapterConfig { rank: lora.rank as usize, alpha: lora.alpha, dropout: lora.dropout, targets }
}

/// How many numbers an adapter on the checkpoint consists of.
pub(super) fn parameter_count(lora: &Lora, checkpoint: &Checkpoint) -> usize {
    checkpoint.adapter_parameter_count(&config(lora, checkpoint))
}

/// What a task trains of a checkpoint: its weights, or an adapter on them.
pub(super) struct Trainee<'a> {
    checkpoint: &'a Checkpoint,
    adapter: Option<AdapterConfig>,
    seed: u64,
}

impl<'a> Trainee<'a> {
    pub(super) fn new(context: &Context, checkpoint: &'a Checkpoint) -> Self {
        let adapter = context.task.operator.lora().map(|lora| config(lora, checkpoint));
        Self { checkpoint, adapter, seed: context.seed().number("lora", "", 0) }
    }

    /// The model to train: the checkpoint's weights with its adapter merged in, or the adapter on the frozen base.
    pub(super) fn load(&self, device: &Device) -> Result<CausalLm, StageError> {
        Ok(match &self.adapter {
            Some(config) => self.checkpoint.load_adapted(device, config, self.seed)?,
            None => self.checkpoint.load(device)?,
        })
    }

    /// Writes what was trained.
    pub(super) fn save(&self, folder: &Path, model: &CausalLm) -> Result<(), StageError> {
        let saved = match &self.adapter {
            Some(config) => self.checkpoint.save_adapter(folder, config, model),
            None => self.checkpoint.save(folder, model),
        };
        Ok(saved?)
    }
}
