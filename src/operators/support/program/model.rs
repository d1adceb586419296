//! The model made by a program: checked like any other, then moved into the run folder.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::{Context, OperatorError, Summary};
use crate::disk;
use crate::model::{Checkpoint, Dtype, Head};
use crate::store::StoreError;

/// The manifest of a model that the program copied.
const MANIFEST: &str = "manifest.json";

/// Takes the model in `folder`, one with this `head`. An adapter is merged into its base.
///
/// # Errors
/// No model, one that cannot be loaded later, or one of another kind.
pub fn take(context: &Context, head: Head, folder: &Path) -> Result<Summary, OperatorError> {
    let left_out = check_files(folder)?;
    let checkpoint = Checkpoint::open(folder).and_then(|checkpoint| checkpoint.expect(head).map(|()| checkpoint));
    let checkpoint =
        checkpoint.map_err(|error| OperatorError::Failed(format!("the model that the program made cannot be used: {error}")))?;
    let writer = context.run.write_model(&context.task.output_key(), context.recipe)?;
    let is_adapter = checkpoint.adapter().is_some();
    if is_adapter {
        checkpoint.export(writer.dir(), Dtype::F32, u64::MAX)?;
    } else {
        for path in disk::list(folder).map_err(StoreError::io("list", folder))? {
            let name = path.file_name().unwrap_or_default();
            if path.is_file() && name != MANIFEST {
                disk::rename(&path, &writer.dir().join(name)).map_err(StoreError::io("move", &path))?;
            }
        }
    }
    writer.finish(BTreeMap::new())?;
    if let Some(first) = left_out.first() {
        let more = if left_out.len() > 1 { format!(" and {} more", left_out.len() - 1) } else { String::new() };
        let problem = format!("the folder {first}{more} is no part of the model and left out; checkpoints belong in OPTUNE_WORK");
        context.progress.warned(&context.task.label(), &problem);
    }
    let noun = if head == Head::Reward { "a reward model" } else { "a model" };
    let merged = if is_adapter { ", an adapter merged into its base" } else { "" };
    Ok(Summary::new(format!("{noun} of {} parameters{merged}", checkpoint.parameter_count())))
}

/// Checks for files, none of them a link: a link would lead out of the run folder. Returns the
/// names of folders.
fn check_files(folder: &Path) -> Result<Vec<String>, OperatorError> {
    let mut folders = Vec::new();
    let mut files = 0;
    let mut paths = disk::list(folder).map_err(StoreError::io("list", folder))?;
    paths.sort();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() {
            let problem = format!("{}: expected a file, found a link; have the program copy what it links to", path.display());
            return Err(OperatorError::Failed(problem));
        }
        if path.is_dir() {
            folders.push(name);
        } else {
            files += 1;
        }
    }
    if files == 0 {
        let problem = format!("expected a model in {}, the folder of OPTUNE_OUTPUT, found no files", folder.display());
        return Err(OperatorError::Failed(problem));
    }
    Ok(folders)
}
