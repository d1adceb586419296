//! The command line: arguments in, printed output back.
//!
//! Exit codes: 0 done, 1 failed, 2 the user's input is wrong, 130 interrupted with the state
//! committed. Knows nothing of tensors.

mod alarms;
mod benchmarks;
mod clean;
mod doctor;
mod error;
mod executor;
mod export;
mod format;
mod help;
mod init;
mod interrupt;
mod judge_summary;
mod pair_columns;
mod pairs;
mod pipeline_arguments;
mod plan;
mod progress;
mod push;
mod quickstart;
mod report;
mod run;
mod scheduler;
mod shell;
mod sql;
mod status;
mod summary;
mod sweep;
mod terminal;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::catch_panic;
use crate::compute::cpu::kernels;
use error::CliError;

/// Efficient online preference tuning of language models: one YAML file is the whole run, and the
/// same command resumes it.
#[derive(Parser)]
#[command(name = "optune", version, about, propagate_version = true)]
struct Arguments {
    /// The folder of the runs.
    #[arg(long, global = true, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the files of the first example and run it.
    Quickstart(quickstart::Quickstart),
    /// Write a commented pipeline file for your own model, data and reward.
    Init(init::Init),
    /// Run a pipeline, or go on with it where it stopped.
    Run(run::Run),
    /// Say what a run would do for each node, and why.
    Plan(plan::Plan),
    /// Say how far a run is.
    Status(status::Status),
    /// Query a run's tables in SQL; a shell without a query.
    Sql(sql::Sql),
    /// Write an HTML file about a run, or about several compared.
    Report(report::Report),
    /// Look at prompts, responses, pairs and progress in a browser, live while a run goes on.
    View(view::View),
    /// Schedule the parts of runs for the executors of a cluster.
    Scheduler(scheduler::Scheduler),
    /// Compute parts of runs for the scheduler of a cluster.
    Executor(executor::Executor),
    /// Write out a policy, or pairs in TRL's form.
    Export(export::Export),
    /// Remove unneeded files: cached outputs, work set aside.
    Clean(clean::Clean),
    /// Print the JSON Schema of pipeline files, for editors.
    Schema,
    /// Show the abilities of this program and this machine.
    Doctor(doctor::Doctor),
    /// Print a script for completing commands in a shell.
    Completions(help::Completions),
    /// Write manual pages.
    Man(help::Man),
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
    let result = kernels::check_bf16_unit().map_err(CliError::Input).and_then(|()| match arguments.command {
        Command::Quickstart(command) => command.execute(&runs),
        Command::Init(command) => command.execute(&runs),
        Command::Run(command) => command.execute(&runs),
        Command::Plan(command) => command.execute(&runs),
        Command::Status(command) => command.execute(&runs),
        Command::Sql(command) => command.execute(&runs),
        Command::Report(command) => command.execute(&runs),
        Command::View(command) => command.execute(&runs),
        Command::Scheduler(command) => command.execute(),
        Command::Executor(command) => command.execute(),
        Command::Export(command) => command.execute(&runs),
        Command::Clean(command) => command.execute(&runs),
        Command::Schema => schema(),
        Command::Doctor(command) => command.execute(&runs),
        Command::Completions(command) => command.execute(self::command()),
        Command::Man(command) => command.execute(self::command()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::tell(&error);
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
