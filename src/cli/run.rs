//! `optune run`: run a pipeline, or go on with it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::progress::watcher;
use super::{CliError, PipelineArguments, plan, summary};
use crate::model::DeviceChoice;
use crate::run::{Report, execute, fetch, prepare};
use crate::stages;
use crate::store::Runs;

/// Set by the first Ctrl-C; the second ends the process, which loses at most the part in hand.
static STOPPED: AtomicBool = AtomicBool::new(false);

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// Check everything and say what would be done, without doing it.
    #[arg(long)]
    dry_run: bool,
    /// Progress as JSON lines on standard error, the result as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// The device for all nodes, instead of what their resources say.
    #[arg(long, value_name = "auto|cpu|cuda")]
    device: Option<DeviceChoice>,
}

impl Run {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let graph = self.pipeline.load()?;
        let run = Runs::open(runs)?.run(&graph.name)?;
        listen()?;
        let stopped = || STOPPED.load(Ordering::SeqCst);
        let progress = watcher(self.json);
        let fetched = fetch(graph, &run, &stopped, progress.as_ref())?;
        let shapes = stages::check(&fetched.graph, self.device)?;
        let prepared = prepare(fetched)?;
        if self.dry_run {
            return plan::show(&run, &prepared, &shapes, self.json);
        }
        let lock = run.lock()?;
        let report = execute(&lock, &prepared, self.device, &stopped, progress.as_ref())?;
        self.conclude(&report)?;
        summary::show(runs, &run, &prepared.graph, self.json)
    }

    /// What to say, and how to exit, when not everything was finished.
    fn conclude(&self, report: &Report) -> Result<(), CliError> {
        let file = self.pipeline.file.display();
        if !report.failures.is_empty() {
            let mut text: Vec<String> = Vec::new();
            for failure in &report.failures {
                text.push(format!("{file}:{}: {}: {}", failure.line, failure.node, failure.error));
            }
            if !report.blocked.is_empty() {
                text.push(format!("not run because of that: {}", report.blocked.join(", ")));
            }
            text.push("what is finished is kept; the same command goes on from there".to_string());
            let text = text.join("\n");
            let input = report.failures.iter().all(|failure| failure.input);
            return Err(if input { CliError::Input(text) } else { CliError::Failed(text) });
        }
        if report.stopped {
            return Err(CliError::Interrupted(
                "interrupted; everything finished is committed, the same command goes on from there".to_string(),
            ));
        }
        Ok(())
    }
}

/// Lets the first Ctrl-C (or SIGTERM) stop the run after the part or step in hand, and the second one at once.
fn listen() -> Result<(), CliError> {
    ctrlc::set_handler(|| {
        if STOPPED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("finishing the part in hand; press Ctrl-C again to drop it");
    })
    .map_err(|error| CliError::Failed(format!("cannot listen for Ctrl-C: {error}")))
}
