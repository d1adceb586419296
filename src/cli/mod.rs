//! The command line: what a person types, and what is printed back.
//!
//! Exit codes: 0 done, 1 failed, 2 the user's input is wrong, 130 interrupted with the state committed. Knows nothing of tensors.

mod clean;
mod doctor;
mod export;
mod format;
mod help;
mod init;
mod pairs;
mod plan;
mod progress;
mod report;
mod run;
mod shell;
mod sql;
mod status;
mod summary;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::catch_panic;
use crate::import::ImportError;
use crate::model::ModelError;
use crate::operators::OperatorError;
use crate::pipeline::{Graph, Pipeline, PipelineError, Sweep};
use crate::run::RunError;
use crate::sql::postgres::ServeError;
use crate::store::StoreError;

/// Efficient online preference tuning of language models: one YAML file is the whole run, and the same command resumes it.
#[derive(Parser)]
#[command(name = "optune", version, about, propagate_version = true)]
struct Arguments {
    /// The folder that holds the runs.
    #[arg(long, global = true, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented pipeline file for your own model, data and reward.
    Init(init::Init),
    /// Run a pipeline, or go on with it where it stopped.
    Run(run::Run),
    /// Say what a run would do for each node, and why.
    Plan(plan::Plan),
    /// Say how far a run is.
    Status(status::Status),
    /// Ask a run's tables in SQL; a shell without a query.
    Sql(sql::Sql),
    /// Write an HTML file about a run, or about several compared.
    Report(report::Report),
    /// Write out a policy, or pairs in the form that TRL reads.
    Export(export::Export),
    /// Remove what no run needs: cached outputs, work set aside.
    Clean(clean::Clean),
    /// Print the JSON Schema of pipeline files, for editors.
    Schema,
    /// Say what this program and this machine can do.
    Doctor(doctor::Doctor),
    /// Print a script by which a shell completes commands.
    Completions(help::Completions),
    /// Write manual pages.
    Man(help::Man),
}

/// A pipeline file with values for its params.
#[derive(Args)]
struct PipelineArguments {
    /// The pipeline file.
    file: PathBuf,
    /// A value for one of the file's params; may be given several times.
    #[arg(long = "set", value_name = "PARAM=VALUE", value_parser = param)]
    set: Vec<(String, String)>,
    /// A name for the run instead of the file's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected PARAM=VALUE, found {text}"))?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

impl PipelineArguments {
    fn load(&self) -> Result<Graphs, CliError> {
        let sweep = Sweep::load(&self.file, &self.set)?;
        let name = self.name.clone().unwrap_or_else(|| sweep.name.clone());
        let graph = |pipeline: &Pipeline| {
            let mut graph = pipeline.graph(Path::new(""))?;
            let of_point = graph.name.strip_prefix(&sweep.name).unwrap_or_default();
            graph.name = format!("{name}{of_point}");
            Ok(graph)
        };
        let graphs = sweep.runs.iter().map(graph).collect::<Result<_, CliError>>()?;
        Ok(Graphs { name, graphs, has_matrix: sweep.has_matrix })
    }
}

/// The graphs of all runs of a pipeline file.
struct Graphs {
    name: String,
    graphs: Vec<Graph>,
    has_matrix: bool,
}

/// Why a command ended before its end.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The user's input is wrong: exit code 2.
    #[error("{0}")]
    Input(String),
    /// Something failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The run was interrupted: exit code 130.
    #[error("{0}")]
    Interrupted(String),
}

impl From<PipelineError> for CliError {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Invalid(_) => Self::Input(error.to_string()),
            PipelineError::Internal(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> Self {
        OperatorError::from(error).into()
    }
}

impl From<OperatorError> for CliError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Stopped => Self::Interrupted("interrupted; the same command goes on from there".to_string()),
            error if error.is_input() => Self::Input(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Read { .. } | ModelError::Write { .. } => Self::Failed(error.to_string()),
            _ => Self::Input(error.to_string()),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        if error.is_input() { Self::Input(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Address { .. } => Self::Input(error.to_string()),
            ServeError::Listen { .. } | ServeError::Start(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Operator(error) => error.into(),
            RunError::Store(error) => error.into(),
            // A server's address or token.
            RunError::Tracking(_) => Self::Input(error.to_string()),
            RunError::Pipeline(_) | RunError::Internal { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The definition of all commands and their arguments, for completions, manual pages and the
/// documentation.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command in the process's arguments.
pub fn main() -> ExitCode {
    catch_panic::silence_caught_panics();
    let arguments = Arguments::parse();
    let runs = arguments.runs;
    let result = match arguments.command {
        Command::Init(command) => command.execute(&runs),
        Command::Run(command) => command.execute(&runs),
        Command::Plan(command) => command.execute(&runs),
        Command::Status(command) => command.execute(&runs),
        Command::Sql(command) => command.execute(&runs),
        Command::Report(command) => command.execute(&runs),
        Command::Export(command) => command.execute(&runs),
        Command::Clean(command) => command.execute(&runs),
        Command::Schema => schema(),
        Command::Doctor(command) => command.execute(&runs),
        Command::Completions(command) => command.execute(),
        Command::Man(command) => command.execute(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(match error {
                CliError::Failed(_) => 1,
                CliError::Input(_) => 2,
                CliError::Interrupted(_) => 130,
            })
        }
    }
}

fn schema() -> Result<(), CliError> {
    format::print(&crate::pipeline::schema())
}
