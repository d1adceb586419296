//! Adapters: their bases by lineage, and their checks before a run.
//!
//! A task with `lora` makes an adapter and no model of its own. The base is the model before the
//! training. Where this is an adapter too, the training goes on with it, and the base is its base.
//! So a base never has more than one adapter on it.

use std::path::PathBuf;

use super::OperatorError;
use super::model_folders::ModelFolders;
use crate::did_you_mean::suggestion;
use crate::model::{self, AdapterConfig, Checkpoint, ModuleNames};
use crate::pipeline::graph::{Graph, Input, SourceKind, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::lora::{Lora, Modules};
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

/// The folders of the model of `input`, for another process.
///
/// # Errors
/// An unfinished model, or a missing base.
pub(in crate::operators) fn folders(run: &Run, graph: &Graph, input: Input) -> Result<ModelFolders, OperatorError> {
    let base = base(graph, input);
    if base == input {
        return ModelFolders::new(&folder(run, graph, input)?);
    }
    Ok(ModelFolders { folder: folder(run, graph, base)?, adapter: Some(folder(run, graph, input)?) })
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

/// Whether a model is one from outside, or an adapter on one.
pub(in crate::operators) fn is_on_source(graph: &Graph, input: Input) -> bool {
    graph.source(base(graph, input)).is_some()
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
/// A name or pattern without a meaning in the model, or an adapter with other settings.
pub(in crate::operators) fn check(graph: &Graph, task: &Task) -> Result<(), OperatorError> {
    let (Some(lora), Some(from)) = (task.operator.lora(), task.input(Slot::From)) else { return Ok(()) };
    let Some(architecture) = architecture(graph, from)? else { return Ok(()) };
    means_something(lora, &architecture).map_err(|problem| OperatorError::Input(format!("lora: {problem}")))?;
    architecture.check_adapted_experts(&config(lora, &architecture)).map_err(|problem| OperatorError::Input(format!("lora: {problem}")))?;
    // The name of the first model and its adapter, if it has one.
    let earlier = match graph.task(from) {
        Some(earlier) => earlier.operator.lora().map(|lora| (earlier.label(), config(lora, &architecture))),
        None => graph.source(from).and_then(|source| Some((source.name.clone(), architecture.adapter()?.clone()))),
    };
    match earlier {
        Some((name, earlier)) if !architecture.same_adapter(&earlier, &config(lora, &architecture)) => Err(OperatorError::Input(format!(
            "lora: it starts from the adapter {name} and goes on with it, so expected {earlier}; \
                 give both the same, or train one of them without `lora`"
        ))),
        _ => Ok(()),
    }
}

/// Checks every name and pattern of an adapter: each has an effect on the model.
fn means_something(lora: &Lora, model: &Checkpoint) -> Result<(), String> {
    let config = config(lora, model);
    let alone = |targets: ModuleNames| AdapterConfig { targets, ..AdapterConfig::default() };
    let projections = model.projections();
    let known: Vec<&str> = projections.iter().map(String::as_str).collect();
    if let ModuleNames::Names(names) = &config.targets {
        let is_missing = |name: &&String| model.adapter_places(&alone(ModuleNames::Names(vec![(*name).clone()]))).is_err();
        if let Some(missing) = names.iter().find(is_missing) {
            let near = suggestion(missing, &known);
            return Err(format!("target_modules: expected projections of the model, found \"{missing}\"{near}"));
        }
    }
    let with = |excluded: Option<ModuleNames>| model.adapter_places(&AdapterConfig { excluded, ..config.clone() });
    let (all, _) = with(None)?;
    let excluded = match &config.excluded {
        Some(ModuleNames::Names(names)) => names.iter().map(|name| ModuleNames::Names(vec![name.clone()])).collect(),
        pattern => Vec::from_iter(pattern.clone()),
    };
    for excluded in excluded {
        if with(Some(excluded.clone()))?.0 == all {
            return Err(format!("exclude_modules: expected projections among those of target_modules, found {excluded}"));
        }
    }
    model.adapter_places(&config)?;
    let plain = AdapterConfig { rank_pattern: Vec::new(), alpha_pattern: Vec::new(), ..config.clone() };
    let patterns = lora.rank_pattern.keys().map(|pattern| ("rank_pattern", pattern));
    for (key, pattern) in patterns.chain(lora.alpha_pattern.keys().map(|pattern| ("alpha_pattern", pattern))) {
        // Another rank is another adapter, if the pattern matches at all.
        let other = AdapterConfig { rank_pattern: vec![(pattern.clone(), plain.rank + 1)], ..plain.clone() };
        if model.same_adapter(&plain, &other) {
            return Err(format!("{key}: expected a name or a pattern of an adapted projection, found \"{pattern}\""));
        }
    }
    for name in &config.modules_to_save {
        let one = AdapterConfig { modules_to_save: vec![name.clone()], ..config.clone() };
        model.adapter_places(&one).map_err(|problem| format!("modules_to_save: {problem}"))?;
    }
    Ok(())
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
    let modules = |modules: &Modules| match modules {
        Modules::AllLinear => ModuleNames::Names(checkpoint.projections()),
        Modules::Named(named) => ModuleNames::Names(named.clone()),
        Modules::Pattern(pattern) => ModuleNames::Pattern(pattern.clone()),
    };
    AdapterConfig {
        rank: lora.rank as usize,
        alpha: lora.alpha,
        dropout: lora.dropout,
        use_rslora: lora.use_rslora,
        use_dora: lora.use_dora,
        targets: modules(&lora.target_modules),
        excluded: lora.exclude_modules.as_ref().map(modules),
        rank_pattern: lora.rank_pattern.iter().map(|(pattern, rank)| (pattern.clone(), rank.0 as usize)).collect(),
        alpha_pattern: lora.alpha_pattern.iter().map(|(pattern, alpha)| (pattern.clone(), alpha.0)).collect(),
        modules_to_save: lora.modules_to_save.clone(),
        ..AdapterConfig::default()
    }
}

/// The number of parameters of an adapter on the checkpoint; none of a wrong one, which is refused
/// elsewhere.
pub(in crate::operators) fn parameter_count(lora: &Lora, checkpoint: &Checkpoint) -> usize {
    checkpoint.adapter_parameter_count(&config(lora, checkpoint)).unwrap_or(0)
}
