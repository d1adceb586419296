//! A program of the user's that does the work of a node: its inputs as paths, its run, and its
//! output, checked.
//!
//! ```text
//! inputs ─▶ environment ─▶ program ─▶ output ─▶ run folder
//! ```
//! The program has a work folder that outlives a kill. Knows neither the program nor what it does.

pub mod environment;
pub mod files;
pub mod model;
mod process;
mod progress_lines;

use std::path::Path;

use self::environment::Variables;
use super::{Context, OperatorError, Summary};
use crate::pipeline::spec::command::Program;
use crate::store;

/// The thing that a program makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// A table: a file, or a folder of files.
    Table,
    /// A model: a folder, made before the program starts.
    Model,
}

impl Product {
    /// Its file or folder in the work folder.
    fn name(self) -> &'static str {
        match self {
            Self::Table => "output.parquet",
            Self::Model => "output",
        }
    }
}

/// Runs the node's `program`. `inputs` fills an empty folder and returns the variables of its
/// inputs; `take` takes the product at a path into the run folder.
///
/// # Errors
/// Changed files, a program that fails, or a product that cannot be used.
pub fn run(
    context: &Context,
    program: Program<'_>,
    product: Product,
    inputs: impl FnOnce(&Path) -> Result<Variables, OperatorError>,
    take: impl FnOnce(&Path) -> Result<Summary, OperatorError>,
) -> Result<Summary, OperatorError> {
    let key = context.task.output_key();
    let fingerprint = context.recipe.fingerprint();
    check_files(context, program)?;
    let folder = context.run.work(&key, &fingerprint)?;
    let alone = process::Alone::new(context, &folder)?;
    let output = folder.join(product.name());
    let variables = environment::variables(context, &folder, &output, product == Product::Model, inputs)?;
    alone.run(program, &variables)?;
    let summary = take(&output)?;
    context.run.remove_work(&key, &fingerprint)?;
    Ok(summary)
}

/// Checks that the program's files are still those of the recipe: a change during the run would
/// give the output a wrong fingerprint.
fn check_files(context: &Context, program: Program<'_>) -> Result<(), OperatorError> {
    let expected = context.recipe.inputs.get(files::FILES).map(Vec::as_slice).unwrap_or_default();
    for ((name, path), expected) in program.place.files.iter().zip(expected) {
        if files::fingerprint(name, &store::fingerprint_of(path)?) != *expected {
            let problem = format!("{}: changed since the run began; run the same command again to go on with it", path.display());
            return Err(OperatorError::Input(problem));
        }
    }
    Ok(())
}
