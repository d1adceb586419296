//! `optune run`: run a pipeline, or go on with it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::interrupt::{is_stopped, listen};
use super::pipeline_arguments::PipelineArguments;
use super::progress::watcher;
use super::sweep::{self, Checked, Tally};
use super::terminal::tell;
use super::{plan, summary};
use crate::compute::DeviceChoice;
use crate::operators::{self, Progress};
use crate::pipeline::Graph;
use crate::pipeline::spec::devices::Devices;
use crate::run::{FileHashes, Prepared, Report, execute, fetch, prepare};
use crate::store::{self, Runs};

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
    /// The device for all nodes, instead of the one in their resources: auto, cpu or cuda; or
    /// several, each with a copy of the model, as cpu:2 or cuda:0,cuda:1.
    #[arg(long, value_name = "auto|cpu|cuda|…", value_parser = devices)]
    device: Option<DeviceChoice>,
}

/// One device, or a list of them.
fn devices(text: &str) -> Result<DeviceChoice, String> {
    if text.contains([':', ',']) {
        return Devices::parse(text.split(',')).map(|devices| operators::devices_choice(&devices));
    }
    text.parse::<DeviceChoice>().map_err(|error| error.to_string())
}

impl Run {
    /// The run of a pipeline file as it is.
    pub(super) fn of(file: PathBuf) -> Self {
        let pipeline = PipelineArguments { file, set: Vec::new(), name: None, cluster: None };
        Self { pipeline, dry_run: false, json: false, device: None }
    }

    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let sweep = self.pipeline.load()?;
        listen("finishing the part in hand; press Ctrl-C again to drop it")?;
        let progress = watcher(self.json);
        if !sweep.has_matrix {
            return sweep.graphs.into_iter().try_for_each(|graph| self.one(runs, graph, progress.as_ref()));
        }
        let checked = self.check(runs, sweep.graphs, progress.as_ref())?;
        if self.dry_run {
            return sweep::show_plan(checked.iter().map(|each| (&each.run, &each.prepared)), self.json);
        }
        let mut worked_on = Vec::new();
        let mut errors = Vec::new();
        // Finished outputs are left as they are: comparing every byte of many runs takes its time.
        // `status --verify` does it.
        for (number, each) in checked.iter().enumerate().filter(|(_, each)| !each.is_finished) {
            let Checked { run, prepared, .. } = each;
            self.announce(run.name(), number + 1, checked.len());
            worked_on.push(each);
            match self.finish(run, prepared, progress.as_ref()) {
                Ok(()) => {}
                Err(CliError::Interrupted(said)) => return Err(CliError::Interrupted(said)),
                Err(error) => errors.push((run.name(), error)),
            }
        }
        if errors.is_empty() {
            return sweep::conclude(runs, &sweep.name, &worked_on, checked.len(), self.json);
        }
        let is_input = errors.iter().all(|(_, error)| matches!(error, CliError::Input(_)));
        let text: Vec<String> = errors.iter().map(|(name, error)| format!("run {name}: {error}")).collect();
        let text = format!("{}\n{} of {} runs are not finished", text.join("\n"), errors.len(), checked.len());
        Err(if is_input { CliError::Input(text) } else { CliError::Failed(text) })
    }

    /// A file of one run.
    fn one(&self, runs: &Path, graph: Graph, progress: &dyn Progress) -> Result<(), CliError> {
        let run = Runs::open(runs)?.run(&graph.name)?;
        let fetched = fetch(graph, &run, &is_stopped, progress)?;
        let checked = operators::check(&fetched.graph, self.device.as_ref())?;
        let prepared = prepare(fetched, &mut FileHashes::default())?;
        if self.dry_run {
            return plan::show(&run, &prepared, &checked, self.json);
        }
        checked.notes.iter().for_each(|(name, note)| progress.warned(name, note));
        self.finish(&run, &prepared, progress)?;
        summary::show(runs, &run, &prepared.graph, self.json)
    }

    /// Checks all runs of a sweep with work to do, before any of them begins.
    fn check(&self, runs: &Path, graphs: Vec<Graph>, progress: &dyn Progress) -> Result<Vec<Checked>, CliError> {
        let runs = Runs::open(runs)?;
        let mut hashed = FileHashes::default();
        let mut checked = Vec::new();
        for graph in graphs {
            let run = runs.run(&graph.name)?;
            let prepared = prepare(fetch(graph, &run, &is_stopped, progress)?, &mut hashed)?;
            let is_finished = Tally::of(&run, &prepared)?.is_finished() && sweep::is_as_written(&run, &prepared)?;
            if !is_finished {
                let found = operators::check(&prepared.graph, self.device.as_ref())?;
                found.notes.iter().for_each(|(name, note)| progress.warned(name, note));
            }
            checked.push(Checked { run, prepared, is_finished });
        }
        Ok(checked)
    }

    /// Does the remaining work of a run.
    fn finish(&self, run: &store::Run, prepared: &Prepared, progress: &dyn Progress) -> Result<(), CliError> {
        let lock = run.lock()?;
        let report = execute(&lock, prepared, self.device.as_ref(), &is_stopped, progress)?;
        self.conclude(&report)
    }

    /// Announces the next run of a sweep.
    fn announce(&self, name: &str, number: usize, of: usize) {
        if self.json {
            tell(serde_json::json!({ "event": "run", "run": name, "number": number, "of": of }));
        } else {
            tell(format!("run {name} ({number} of {of})"));
        }
    }

    /// The message and the exit code when not everything was finished.
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
