//! The environment of a program: its inputs as paths, the places for its output and its work, seed
//! and iteration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::model::{Checkpoint, Dtype};
use crate::operators::support::lora;
use crate::operators::{Context, OperatorError};
use crate::pipeline::graph::{Binding, SourceKind};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::Output;
use crate::store::StoreError;

/// This module in internal errors.
const PLACE: &str = "operators::command::environment";

/// The folder of the inputs' files in the work folder; made anew for each call.
const INPUTS: &str = "inputs";

/// The folder of the program's own files in the work folder.
const WORK: &str = "work";

/// The beginning of the variables with inputs.
pub(super) const INPUT: &str = "OPTUNE_INPUT_";

/// The variables of a program with its work in `folder`. Makes the folders in them, without an
/// earlier `output`.
pub(super) fn variables(
    context: &Context,
    folder: &Path,
    output: &Path,
    makes_model: bool,
) -> Result<Vec<(String, OsString)>, OperatorError> {
    let inputs = folder.join(INPUTS);
    let work = folder.join(WORK);
    for old in [inputs.as_path(), output] {
        disk::remove(old).map_err(StoreError::io("remove", old))?;
    }
    for new in [&inputs, &work].into_iter().map(PathBuf::as_path).chain(makes_model.then_some(output)) {
        disk::create_folder(new).map_err(StoreError::io("create", new))?;
    }
    let mut variables = Vec::new();
    for binding in context.task.inputs(Slot::Inputs) {
        let path = input(context, binding, &inputs.join(&binding.name))?;
        let path = std::path::absolute(&path).map_err(StoreError::io("find", &path))?;
        variables.push((format!("{INPUT}{}", binding.name.to_uppercase()), path.into_os_string()));
    }
    let iteration = context.task.iteration.unwrap_or(0);
    variables.extend([
        ("OPTUNE_OUTPUT".to_string(), output.as_os_str().to_owned()),
        ("OPTUNE_WORK".to_string(), work.into_os_string()),
        ("OPTUNE_SEED".to_string(), context.graph.seed.to_string().into()),
        ("OPTUNE_ITERATION".to_string(), iteration.to_string().into()),
        ("OPTUNE_NODE".to_string(), context.task.name.clone().into()),
        ("OPTUNE_RUN".to_string(), context.graph.name.clone().into()),
        ("OPTUNE_FINGERPRINT".to_string(), context.recipe.fingerprint().to_string().into()),
    ]);
    Ok(variables)
}

/// The directory of an input. That of a table has its Parquet files and nothing else: readers would
/// take a manifest for a part, and `iteration=2` in a path for a column. That of an adapter is the
/// model with the adapter merged in.
fn input(context: &Context, binding: &Binding, folder: &Path) -> Result<PathBuf, OperatorError> {
    let task = context.graph.task(binding.input);
    let source = context.graph.source(binding.input);
    match (source.map(|source| &source.kind), task.map(|task| task.output())) {
        (Some(SourceKind::Model { path }), _) => whole(Checkpoint::open(path)?, path, folder),
        (_, Some(Output::Model)) => {
            let checkpoint = lora::open(context.run, context.graph, binding.input)?;
            whole(checkpoint, &lora::folder(context.run, context.graph, binding.input)?, folder)
        }
        (_, Some(Output::Reward)) => Ok(lora::folder(context.run, context.graph, binding.input)?),
        (Some(SourceKind::Reward { .. }), _) | (None, None) => {
            Err(OperatorError::internal(PLACE, format!("{} is neither a table nor a model", binding.name)))
        }
        (Some(SourceKind::Table { .. }), _) | (_, Some(_)) => {
            let key = source.map(|source| source.output_key()).or(task.map(|task| task.output_key()));
            let key = key.ok_or_else(|| OperatorError::internal(PLACE, format!("{} has no output", binding.name)))?;
            context.run.link_table(&key, folder)?;
            Ok(folder.to_path_buf())
        }
    }
}

/// The directory of a model without an adapter beside its base: `own`, or a merged copy in
/// `folder`.
fn whole(checkpoint: Checkpoint, own: &Path, folder: &Path) -> Result<PathBuf, OperatorError> {
    if checkpoint.adapter().is_none() {
        return Ok(own.to_path_buf());
    }
    checkpoint.export(folder, Dtype::F32, u64::MAX)?;
    Ok(folder.to_path_buf())
}
