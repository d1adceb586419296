//! The environment of a program: its inputs as paths, the places for its output and its work, seed
//! and iteration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::super::lora;
use super::super::{Context, OperatorError};
use crate::disk;
use crate::model::{Checkpoint, Dtype};
use crate::pipeline::graph::{Binding, SourceKind};
use crate::pipeline::spec::operator::Output;
use crate::store::StoreError;

/// This module in internal errors.
const PLACE: &str = "operators::support::program::environment";

/// Variables of the environment: names and values.
pub type Variables = Vec<(String, OsString)>;

/// The folder of the inputs' files in the work folder; made anew for each call.
const INPUTS: &str = "inputs";

/// The folder of the program's own files in the work folder.
const WORK: &str = "work";

/// The beginning of the variables with inputs.
pub const INPUT: &str = "OPTUNE_INPUT_";

/// The variable with the settings of a node whose work the program does in place of ours, as JSON.
pub const SETTINGS: &str = "OPTUNE_SETTINGS";

/// The variables of a program with its work in `folder`. Makes the folders in them, without an
/// earlier `output`; it is made anew if it is a folder. `inputs` fills the folder of the inputs.
pub(super) fn variables(
    context: &Context,
    folder: &Path,
    output: &Path,
    is_folder: bool,
    inputs: impl FnOnce(&Path) -> Result<Variables, OperatorError>,
) -> Result<Variables, OperatorError> {
    let of_inputs = folder.join(INPUTS);
    let work = folder.join(WORK);
    for old in [of_inputs.as_path(), output] {
        disk::remove(old).map_err(StoreError::io("remove", old))?;
    }
    let made = is_folder.then_some(output);
    for new in [&of_inputs, &work].into_iter().map(PathBuf::as_path).chain(made) {
        disk::create_folder(new).map_err(StoreError::io("create", new))?;
    }
    let mut variables = inputs(&of_inputs)?;
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

/// The variable of the input `name` with this path.
///
/// # Errors
/// A working directory that is gone.
pub fn variable(name: &str, path: &Path) -> Result<Variables, OperatorError> {
    let absolute = std::path::absolute(path).map_err(StoreError::io("find", path))?;
    Ok(vec![(format!("{INPUT}{}", name.to_uppercase()), absolute.into_os_string())])
}

/// The directory of an input; `folder` is for files that have to be made. That of a table has its
/// Parquet files and nothing else: readers would take a manifest for a part, and `iteration=2` in a
/// path for a column. That of an adapter is the model with the adapter merged in.
///
/// # Errors
/// An input that is neither a table nor a model, or files that cannot be read or linked.
pub fn input(context: &Context, binding: &Binding, folder: &Path) -> Result<PathBuf, OperatorError> {
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
