//! command: a table or a model made by a program of the user's.
//!
//! ```text
//! inputs ─▶ environment ─▶ program ─▶ table, model ─▶ run folder
//! ```
//! The program has a work folder that outlives a kill. Its output is checked before it counts.
//! Knows neither the program nor what it does.

mod environment;
mod model;
mod program;
mod progress_lines;
mod table;

use super::support::program_files;
use super::{Context, OperatorError, Summary};
use crate::pipeline::spec::command::{Command, Made};
use crate::store;

/// The file of a program's table in its work folder, and the folder of its model.
const OUTPUT: [&str; 2] = ["output.parquet", "output"];

/// Runs the program and takes its output.
pub(super) fn run(context: &Context, settings: &Command) -> Result<Summary, OperatorError> {
    let key = context.task.output_key();
    let fingerprint = context.recipe.fingerprint();
    check_files(context, settings)?;
    let folder = context.run.work(&key, &fingerprint)?;
    let program = program::Program::alone(context, &folder)?;
    let makes_model = matches!(settings.output, Made::Model | Made::RewardModel);
    let output = folder.join(if makes_model { OUTPUT[1] } else { OUTPUT[0] });
    let variables = environment::variables(context, &folder, &output, makes_model)?;
    program.run(settings, &variables)?;
    let summary = if makes_model { model::take(context, settings, &output) } else { table::take(context, settings, &output) }?;
    context.run.remove_work(&key, &fingerprint)?;
    Ok(summary)
}

/// Checks that the program's files are still those of the recipe: a change during the run would
/// give the output a wrong fingerprint.
fn check_files(context: &Context, settings: &Command) -> Result<(), OperatorError> {
    let expected = context.recipe.inputs.get(program_files::FILES).map(Vec::as_slice).unwrap_or_default();
    for ((name, path), expected) in settings.place.files.iter().zip(expected) {
        if program_files::fingerprint(name, &store::fingerprint_of(path)?) != *expected {
            let problem = format!("{}: changed since the run began; run the same command again to go on with it", path.display());
            return Err(OperatorError::Input(problem));
        }
    }
    Ok(())
}
