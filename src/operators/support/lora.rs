//! Adapters: their bases by lineage, and their checks before a run.
//!
//! A task with `lora` makes an adapter and no model of its own. The base is the model before the
//! training. Where this is an adapter too, the training goes on with it, and the base is its base.
//! So a base never has more than one adapter on it.

use std::path::PathBuf;

use super::OperatorError;
use crate::model::{self, AdapterConfig, Checkpoint};
use crate::pipeline::graph::{Graph, Input, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::lora::{Lora, Targets};
use crate::store::Run;

/// This module in internal errors.
const PLACE: &str = "operators::support::lora";

/// The model of `input`, opened but not loaded; an adapter comes with its base.
///
/// # Errors
/// An unfinished model, or invalid files.
pub fn open(run: &Run, graph: &Graph, input: Input) -> Result<Checkpoint, OperatorError> {
    let base = base(graph, input);
    let checkpoint = Checkpoint::open(&folder(run, graph, base)?)?;
    if base == input { Ok(checkpoint) } else { Ok(checkpoint.with_adapter(&folder(run, graph, input)?)?) }
}

/// The directory of the base of an adapter: as written in the pipeline file, or an absolute path
/// when a task made it. None for a model without an adapter.
///
/// # Errors
/// A missing base.
pub fn base_folder(run: &Run, graph: &Graph, input: Input) -> Result<Option<PathBuf>, OperatorError> {
    let base = base(graph, input);
    let folder = folder(run, graph, base)?;
    match graph.source(base) {
        Some(_) => Ok(model::base_of(&folder)?.or((base != input).then_some(folder))),
        None if base == input => Ok(None),
        None => match std::path::absolute(&folder) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) => Err(OperatorError::Failed(format!("{}: {error}", folder.display()))),
        },
    }
}

/// The inputs of a task, and the bases of adapters among them.
pub fn needs<'a>(graph: &'a Graph, task: &'a Task) -> impl Iterator<Item = Input> + 'a {
    task.inputs.iter().flat_map(|binding| {
        let base = base(graph, binding.input);
        let base = (base != binding.input).then_some(base);
        [binding.input].into_iter().chain(base)
    })
}

/// The first model behind `input` not made as an adapter by a task.
fn base(graph: &Graph, mut input: Input) -> Input {
    while let Some(from) = graph.task(input).filter(|task| task.operator.lora().is_some()).and_then(|task| task.input(Slot::From)) {
        input = from;
    }
    input
}

/// The directory of a model, finished or not.
pub(in crate::operators) fn folder(run: &Run, graph: &Graph, input: Input) -> Result<PathBuf, OperatorError> {
    match (graph.source(input).map(|source| &source.kind), graph.task(input)) {
        (Some(SourceKind::Model { path }), _) => Ok(path.clone()),
        (_, Some(task)) => Ok(run.model_dir(&task.output_key())?),
        _ => Err(OperatorError::internal(PLACE, format!("expected a model, found the input {input:?}"))),
    }
}

/// Checks the adapter of a task against its first model, and against the adapter on this model
/// where it has one.
///
/// # Errors
/// A target missing in the model, one that PEFT has not, or an adapter of another rank, alpha or
/// other targets.
pub(in crate::operators) fn check(graph: &Graph, task: &Task) -> Result<(), OperatorError> {
    let (Some(lora), Some(from)) = (task.operator.lora(), task.input(Slot::From)) else { return Ok(()) };
    let Some(architecture) = architecture(graph, from)? else { return Ok(()) };
    let projections = architecture.projections();
    if let Targets::Named(named) = &lora.targets
        && let Some(missing) = named.iter().find(|target| !projections.iter().any(|projection| projection == target.name()))
    {
        let found = projections.join(", ");
        return Err(OperatorError::Input(format!(
            "lora: expected targets that the model has, which are {found}; found {}",
            missing.name()
        )));
    }
    architecture.check_adapted_experts(&config(lora, &architecture)).map_err(|problem| OperatorError::Input(format!("lora: {problem}")))?;
    // The name of the first model and its adapter, if it has one.
    let earlier = match graph.task(from) {
        Some(earlier) => earlier.operator.lora().map(|lora| (earlier.label(), config(lora, &architecture))),
        None => graph.source(from).and_then(|source| Some((source.name.clone(), architecture.adapter()?.clone()))),
    };
    match earlier {
        Some((name, earlier)) if !architecture.same_adapter(&earlier, &config(lora, &architecture)) => {
            let AdapterConfig { rank, alpha, targets, .. } = earlier;
            Err(OperatorError::Input(format!(
                "lora: it starts from the adapter {name} and goes on with it, so expected rank {rank}, alpha {alpha} and targets {}; \
                 give both the same, or train one of them without `lora`",
                targets.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

/// The outside model at the start of the trainings behind `input`.
fn architecture(graph: &Graph, mut input: Input) -> Result<Option<Checkpoint>, OperatorError> {
    while let Some(from) = graph.task(input).and_then(|task| task.input(Slot::From)) {
        input = from;
    }
    match graph.source(input).map(|source| &source.kind) {
        // It may be without weights: `sft` can initialise a model from its configuration.
        Some(SourceKind::Model { path }) if model::base_of(path)?.is_none() => Ok(Some(Checkpoint::open_blank(path)?)),
        Some(SourceKind::Model { path }) => Ok(Some(Checkpoint::open(path)?)),
        _ => Ok(None),
    }
}

/// The adapter of a checkpoint with these settings.
pub(super) fn config(lora: &Lora, checkpoint: &Checkpoint) -> AdapterConfig {
    let targets = match &lora.targets {
        Targets::AllLinear => checkpoint.projections(),
        Targets::Named(named) => named.iter().map(|target| target.name().to_string()).collect(),
    };
    AdapterConfig { rank: lora.rank as usize, alpha: lora.alpha, dropout: lora.dropout, targets }
}

/// The number of parameters of an adapter on the checkpoint.
pub(in crate::operators) fn parameter_count(lora: &Lora, checkpoint: &Checkpoint) -> usize {
    checkpoint.adapter_parameter_count(&config(lora, checkpoint))
}
