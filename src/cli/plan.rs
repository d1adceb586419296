//! `optune plan`: the work of a run for each node, and the reason.

use std::path::Path;

use clap::Args;
use indexmap::IndexMap;

use super::error::CliError;
use super::format::print;
use super::pipeline_arguments::PipelineArguments;
use super::progress::watcher;
use super::sweep;
use crate::operators::{self, Checked};
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::Operator;
use crate::run::{FileHashes, Prepared, describe, fetch, input_tables, must_run, prepare};
use crate::store::{Run, Runs};

#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// Print the SQL of the relational nodes instead.
    #[arg(long)]
    sql: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let sweep = self.pipeline.load()?;
        let runs = Runs::open(runs)?;
        let several = sweep.graphs.len() > 1;
        let mut hashed = FileHashes::default();
        let mut checked = Vec::new();
        if several && self.sql {
            let problem =
                format!("expected a file of one run, found a matrix of {}; choose one with --set for each of its axes", sweep.graphs.len());
            return Err(CliError::Input(problem));
        }
        for graph in sweep.graphs {
            let run = runs.run(&graph.name)?;
            let fetched = fetch(graph, &run, &|| false, watcher(self.json).as_ref())?;
            let found = operators::check(&fetched.graph, None)?;
            if self.sql {
                return show_sql(&fetched.graph);
            }
            let prepared = prepare(fetched, &mut hashed)?;
            if !several {
                return show(&run, &prepared, &found, self.json);
            }
            checked.push((run, prepared));
        }
        sweep::show_plan(checked.iter().map(|(run, prepared)| (run, prepared)), self.json)
    }
}

/// Prints one line an outside table, with the dataset format of its rows, one a task, and one a
/// note of the check.
pub(super) fn show(run: &Run, prepared: &Prepared, checked: &Checked, json: bool) -> Result<(), CliError> {
    let mut lines = Vec::new();
    for table in input_tables(run, prepared)? {
        let name = &table.source.name;
        let fingerprint = table.recipe.fingerprint();
        let state = table.describe();
        lines.push(if json {
            let line = serde_json::json!({
                "node": name, "iteration": null, "operator": "input", "dataset_format": checked.dataset_formats.get(name),
                "fingerprint": fingerprint, "runs": must_run(&table.state), "state": state,
            });
            line.to_string()
        } else {
            let dataset_format =
                checked.dataset_formats.get(name).map_or(String::new(), |dataset_format| format!("{}, ", dataset_format.name()));
            format!("{name:30} {:12} {}  {dataset_format}{state}", "input", fingerprint.short())
        });
    }
    let states = crate::run::plan(run, prepared)?;
    for ((task, recipe), state) in prepared.graph.tasks.iter().zip(&prepared.recipes).zip(&states) {
        let fingerprint = recipe.fingerprint();
        lines.push(if json {
            let line = serde_json::json!({
                "node": task.name, "iteration": task.iteration, "operator": task.operator.name(),
                "fingerprint": fingerprint, "runs": must_run(state), "state": describe(state, recipe),
            });
            line.to_string()
        } else {
            format!("{:30} {:12} {}  {}", task.label(), task.operator.name(), fingerprint.short(), describe(state, recipe))
        });
    }
    for (name, note) in staying(&prepared.graph).iter().chain(&checked.notes) {
        lines.push(if json { serde_json::json!({ "node": name, "note": note }).to_string() } else { format!("note: {name}: {note}") });
    }
    print(&lines.join("\n"))
}

/// Notes on the nodes outside the cluster, one for each reason.
fn staying(graph: &Graph) -> Vec<(String, String)> {
    let Some(address) = &graph.cluster else { return Vec::new() };
    let mut nodes: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for task in &graph.tasks {
        if let Some(reason) = operators::staying(graph, task) {
            let named = nodes.entry(reason).or_default();
            if !named.contains(&task.name.as_str()) {
                named.push(&task.name);
            }
        }
    }
    let note = |(reason, names): (&str, Vec<&str>)| {
        let stay = if names.len() == 1 { "stays" } else { "stay" };
        (format!("cluster {address}"), format!("{} {stay} on this machine: {reason}", names.join(", ")))
    };
    nodes.into_iter().map(note).collect()
}

fn show_sql(graph: &Graph) -> Result<(), CliError> {
    let texts: Vec<String> =
        graph.tasks.iter().filter_map(|task| Some(format!("-- {}\n{};", task.label(), sql_of(graph, task)?))).collect();
    print(&texts.join("\n\n"))
}

/// SQL equivalent to a relational task; none for the others.
fn sql_of(graph: &Graph, task: &Task) -> Option<String> {
    use crate::pipeline::graph::{Reward, SourceKind};
    match &task.operator {
        Operator::Select(settings) => {
            Some(operators::select::sql(settings, task.iteration.unwrap_or(0), None, task.input(Slot::Pool).is_some()))
        }
        Operator::Merge(settings) => Some(operators::merge::sql(task.input(Slot::Carried).is_some(), settings.keep_best)),
        Operator::Pair(settings) => Some(operators::pair::sql(settings)),
        Operator::Sql(settings) => Some(settings.query.text.trim().to_string()),
        Operator::Score(_) => match graph.source(task.input(Slot::Reward)?).map(|source| &source.kind) {
            Some(SourceKind::Reward { reward }) => {
                let queries = reward.leaves().into_iter().filter_map(|leaf| match leaf {
                    Reward::Sql(sql) => Some(sql.trim().to_string()),
                    _ => None,
                });
                Some(queries.collect::<Vec<_>>().join(";\n")).filter(|queries| !queries.is_empty())
            }
            _ => None,
        },
        Operator::Generate(_) | Operator::Reference(_) | Operator::Train(_) | Operator::Evaluate(_) | Operator::Sft(_) => None,
        Operator::RewardModel(_) | Operator::Rank(_) | Operator::Texts(_) | Operator::Judge(_) | Operator::Command(_) => None,
        Operator::Answer(_) | Operator::Grade(_) | Operator::AnswerResponses(_) | Operator::Benchmark(_) => None,
    }
}
