//! A sweep on the command line: the runs of a file with a matrix, one after the other. Knows how
//! they are shown, not how one is run.

use std::path::Path;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::error::CliError;
use super::format::print;
use super::summary::{self, Row};
use super::terminal::runs_option;
use crate::pipeline::Pipeline;
use crate::run::{Prepared, input_tables, plan};
use crate::store::{Run, Runs, State};

/// A run of a sweep whose inputs and settings are right.
pub(super) struct Checked {
    pub(super) run: Run,
    pub(super) prepared: Prepared,
    /// Whether every output is in the run's folder.
    pub(super) is_finished: bool,
}

/// The number of nodes of a run in each state.
pub(super) struct Tally {
    done: usize,
    cached: usize,
    waiting: usize,
}

impl Tally {
    pub(super) fn of(run: &Run, prepared: &Prepared) -> Result<Self, CliError> {
        let states = plan(run, prepared)?;
        let count = |state: &State| states.iter().filter(|other| *other == state).count();
        let done = count(&State::Complete);
        let cached = count(&State::Cached);
        Ok(Self { done, cached, waiting: states.len() - done - cached })
    }

    /// Whether every output is in the run's folder.
    pub(super) fn is_finished(&self) -> bool {
        self.cached + self.waiting == 0
    }
}

/// Whether the run's folder has the outside tables and exactly these settings. If not, it may have
/// outputs no longer in the pipeline.
pub(super) fn is_as_written(run: &Run, prepared: &Prepared) -> Result<bool, CliError> {
    let Ok(written) = run.pipeline_file().map_err(CliError::from).and_then(|path| Ok(std::fs::read_to_string(path)?)) else {
        return Ok(false);
    };
    let settings = prepared.graph.to_yaml(run.folder()).map_err(CliError::Failed)?;
    // The checksum follows the settings.
    Ok(written.starts_with(&settings) && input_tables(run, prepared)?.iter().all(|table| table.state == State::Complete))
}

/// Prints one line a run: how many of its nodes are done, cached and to run.
pub(super) fn show_plan<'a>(runs: impl Iterator<Item = (&'a Run, &'a Prepared)> + Clone, as_json: bool) -> Result<(), CliError> {
    let width = runs.clone().map(|(run, _)| run.name().len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (run, prepared) in runs {
        let name = run.name();
        let Tally { done, cached, waiting } = Tally::of(run, prepared)?;
        lines.push(if as_json {
            json!({ "run": name, "done": done, "cached": cached, "to_run": waiting }).to_string()
        } else {
            format!("{name:width$}  {done:4} done  {cached:4} cached  {waiting:4} to run")
        });
    }
    print(&lines.join("\n"))
}

/// The runs of a sweep, by the name of the sweep: their names begin with it and `-`. None where the
/// name is a run itself, or no name.
pub(super) fn runs_of(runs: &Runs, name: &Path) -> Result<Option<Vec<Run>>, CliError> {
    let Some(prefix) = name.to_str().map(|name| format!("{name}-")) else { return Ok(None) };
    if runs.find(name).is_ok() {
        return Ok(None);
    }
    let names = runs.names()?.into_iter().filter(|name| name.starts_with(&prefix));
    let found =
        names.map(|name| Ok(runs.run(&name)?)).filter(|run| run.as_ref().is_ok_and(Run::exists)).collect::<Result<Vec<_>, CliError>>()?;
    Ok(Some(found).filter(|found| !found.is_empty()))
}

/// Prints the grid: for each run the params with differences, its progress, and its last
/// evaluation.
pub(super) fn show_status(runs: &[Run], as_json: bool) -> Result<(), CliError> {
    let read = |run: &Run| run.pipeline_file().ok().and_then(|path| Pipeline::load(&path, &[]).ok());
    let read: Vec<(&Run, Option<Pipeline>)> = runs.iter().map(|run| (run, read(run))).collect();
    let settings: Vec<IndexMap<String, String>> =
        read.iter().map(|(_, pipeline)| pipeline.as_ref().map_or_else(IndexMap::new, settings)).collect();
    let differs = |name: &&String| settings.iter().any(|other| other.get(*name) != settings[0].get(*name));
    let axes: Vec<&String> = settings[0].keys().filter(differs).collect();
    let mut table = vec![
        ["run"]
            .into_iter()
            .chain(axes.iter().map(|axis| axis.as_str()))
            .chain(["state", "held-out reward", "win score"])
            .map(str::to_string)
            .collect::<Vec<_>>(),
    ];
    let mut lines = Vec::new();
    for ((run, pipeline), settings) in read.iter().zip(&settings) {
        let graph = pipeline.as_ref().and_then(|pipeline| pipeline.graph(run.folder()).ok());
        let manifests = run.manifests()?;
        let done = graph.as_ref().map(|graph| {
            graph
                .tasks
                .iter()
                .filter(|task| manifests.iter().any(|(place, manifest)| *place == task.output_key() && manifest.complete))
                .count()
        });
        let nodes = graph.as_ref().map(|graph| graph.tasks.len());
        let row = graph.as_ref().map(|graph| summary::last(run, graph)).transpose()?.flatten();
        let (reward, win_score) = row.map_or((None, None), |row| (row.reward(), row.win_score()));
        let is_running = run.is_locked();
        if as_json {
            let axes: IndexMap<&&String, Option<&String>> = axes.iter().map(|axis| (axis, settings.get(*axis))).collect();
            let line = json!({ "run": run.name(), "axes": axes, "done": done, "nodes": nodes, "running": is_running, "reward": reward, "win_score": win_score });
            lines.push(line.to_string());
            continue;
        }
        let state = match (done, nodes) {
            _ if is_running == Some(true) => "running".to_string(),
            (Some(done), Some(nodes)) if done == nodes => "done".to_string(),
            (Some(done), Some(nodes)) => format!("{done} of {nodes} nodes"),
            _ => "begun".to_string(),
        };
        let number = |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |value| format!("{value:.digits$}"));
        let axes = axes.iter().map(|axis| settings.get(*axis).cloned().unwrap_or_default());
        table.push([run.name().to_string()].into_iter().chain(axes).chain([state, number(reward, 4), number(win_score, 1)]).collect());
    }
    if !as_json {
        lines = aligned(&table);
    }
    print(&lines.join("\n"))
}

/// The params and the seed of a run.
fn settings(pipeline: &Pipeline) -> IndexMap<String, String> {
    let params = pipeline.spec.params.iter().map(|(name, value)| (name.clone(), value.to_string()));
    params.chain([("seed".to_string(), pipeline.spec.seed.to_string())]).collect()
}

/// The rows with their cells below each other.
fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    table.iter().map(line).collect()
}

/// Prints the last iteration of every run with new work, and the next command.
pub(super) fn conclude(runs: &Path, name: &str, worked_on: &[&Checked], of: usize, as_json: bool) -> Result<(), CliError> {
    let rows = worked_on.iter().map(|each| Ok((&each.run, summary::last(&each.run, &each.prepared.graph)?)));
    let rows = rows.collect::<Result<Vec<_>, CliError>>()?;
    if as_json {
        let rows: Vec<Value> = rows.iter().map(|(run, row)| json!({ "run": run.name(), "last": row.as_ref().map(Row::to_json) })).collect();
        return print(&json!({ "sweep": name, "runs": of, "worked_on": rows }).to_string());
    }
    let width = rows.iter().map(|(run, _)| run.name().len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    if rows.iter().any(|(_, row)| row.is_some()) {
        lines.push(format!("{:width$}  {}", "run", summary::titles()));
        lines.extend(rows.iter().filter_map(|(run, row)| Some(format!("{:width$}  {}", run.name(), row.as_ref()?.line()))));
        lines.push(String::new());
    }
    let folder = runs_option(runs);
    lines.push(format!("{name}: {of} runs are finished, {} of them worked on now; next:", rows.len()));
    lines.push(format!("  optune{folder} status {name}"));
    print(&lines.join("\n"))
}
