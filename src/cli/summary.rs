//! The table at the end of a run: costs and results of each iteration, and the next commands to
//! try.

use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;
use serde_json::{Value, json};

use super::alarms;
use super::benchmarks;
use super::error::CliError;
use super::format::print;
use super::judge_summary;
use super::terminal::runs_option;
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::Operator;
use crate::sql::Session;
use crate::store::{Event, EventKind, Run};

/// The columns of a row.
const TITLES: [&str; 10] =
    ["iteration", "regenerated", "tokens", "generate s", "score s", "train s", "evaluate s", "held-out reward", "win score", "NLL"];

/// One iteration of the loop; 0 is the state before the loop.
#[derive(Default)]
pub(super) struct Row {
    iteration: u32,
    regenerated: Option<i64>,
    tokens: Option<i64>,
    /// Seconds of generating, scoring and pairing, training, evaluating.
    seconds: [f64; 4],
    reward: Option<f64>,
    win_score: Option<f64>,
    nll: Option<f64>,
}

/// Prints the summary of a finished run and the next commands to try. Pipelines without an
/// `evaluate` have the latter only.
pub(super) fn show(runs: &Path, run: &Run, graph: &Graph, as_json: bool) -> Result<(), CliError> {
    let session = Session::over_run(run)?;
    let rows = rows(run, graph, &session)?;
    let alarms = alarms::latest(graph, &session)?;
    let kept = benchmarks::kept(run, graph)?;
    if as_json {
        let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
        let alarms = alarms::to_json(&alarms);
        let mut summary = json!({ "run": graph.name, "folder": run.folder(), "iterations": rows, "alarms": alarms });
        if !kept.is_empty() {
            summary["benchmarks"] = benchmarks::to_json(&kept).into();
        }
        let verdicts = judge_summary::to_json(run)?;
        if !verdicts.is_empty() {
            summary["judge"] = Value::Array(verdicts);
        }
        return print(&summary.to_string());
    }
    if !rows.is_empty() {
        let mut lines = vec![titles()];
        lines.extend(rows.iter().map(Row::line));
        print(&lines.join("\n"))?;
        print("NLL: nats a token of the held-out responses under the initial policy; it rises first when training over-optimises\n")?;
    }
    if !kept.is_empty() {
        print(&benchmarks::lines(&kept).join("\n"))?;
    }
    let judged = judge_summary::lines(run)?;
    if !judged.is_empty() {
        print(&judged.join("\n"))?;
    }
    let evaluations: Vec<&str> =
        graph.tasks.iter().filter(|task| matches!(task.operator, Operator::Evaluate(_))).map(|task| task.name.as_str()).collect();
    let is_training = |task: &Task| !evaluations.iter().any(|evaluation| is_of(&task.name, evaluation));
    let mut warnings = alarms::truncated(run, graph, is_training)?;
    warnings.extend(alarms::lines(&alarms));
    if !warnings.is_empty() {
        print(&(warnings.join("\n") + "\n"))?;
    }
    let runs = runs_option(runs);
    let name = &graph.name;
    let mut next = vec![format!("{} is finished; next:", run.folder().display())];
    if let Some((rewards, prompts)) = rewarded(graph, &session) {
        next.push(format!(
            "  optune{runs} sql {name} 'SELECT iteration, \"group\", avg(reward) AS reward FROM {rewards} JOIN {prompts} USING (prompt_id) GROUP BY 1, 2 ORDER BY 1, 2'"
        ));
    }
    next.push(format!("  optune{runs} sql {name}"));
    if graph.tasks.iter().any(|task| matches!(task.operator, Operator::Train(_))) {
        next.push(format!("  optune{runs} export policy {name} tuned"));
        next.push(format!("  optune{runs} export pairs {name} pairs.jsonl"));
    }
    print(&next.join("\n"))
}

/// The titles of the columns.
pub(super) fn titles() -> String {
    TITLES.join("  ")
}

/// The last iteration of a run; none where the pipeline has no `evaluate`.
pub(super) fn last(run: &Run, graph: &Graph) -> Result<Option<Row>, CliError> {
    Ok(rows(run, graph, &Session::over_run(run)?)?.pop())
}

/// The first table of rewards in the loop and the table of its prompts, by name; only where the
/// prompts have a `group`.
fn rewarded(graph: &Graph, session: &Session) -> Option<(String, String)> {
    let task = graph.tasks.iter().find(|task| matches!(task.operator, Operator::Score(_)) && task.iteration.is_some())?;
    let prompts = task.inputs(Slot::Prompts).next()?;
    let columns = session.schema_of(&format!("SELECT * FROM \"{}\"", prompts.name.replace('"', "\"\""))).ok()?;
    columns.field_with_name("group").ok()?;
    Some((task.name.clone(), prompts.name.clone()))
}

/// Whether a task belongs to an `evaluate` node.
fn is_of(task: &str, evaluation: &str) -> bool {
    task.strip_prefix(evaluation).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn rows(run: &Run, graph: &Graph, session: &Session) -> Result<Vec<Row>, CliError> {
    let Some(evaluation) = graph.tasks.iter().find(|task| matches!(task.operator, Operator::Evaluate(_)) && task.iteration.is_some())
    else {
        return Ok(Vec::new());
    };
    let evaluating = |name: &str| is_of(name, &evaluation.name);
    let is_benchmark = |operator: &Operator| {
        matches!(operator, Operator::Answer(_) | Operator::Grade(_) | Operator::AnswerResponses(_) | Operator::Benchmark(_))
    };
    let events = run.journal().read()?;
    let mut rows: Vec<Row> = (0..=graph.iterations).map(|iteration| Row { iteration, ..Row::default() }).collect();
    for task in &graph.tasks {
        let iteration = task.iteration.unwrap_or(0);
        let row = rows.get_mut(iteration as usize).ok_or_else(|| {
            CliError::Failed(format!("internal error: {} has iteration {iteration}, the pipeline {} of them", task.name, graph.iterations))
        })?;
        let manifest = run.manifest(&task.output_key())?;
        let count = |name: &str| manifest.as_ref().and_then(|manifest| manifest.counts.get(name).copied());
        match &task.operator {
            Operator::Select(_) => row.regenerated = count("selected"),
            Operator::Generate(_) if !evaluating(&task.name) => {
                row.tokens = Some(row.tokens.unwrap_or(0) + count("tokens").unwrap_or(0));
            }
            _ => {}
        }
        let stage = match &task.operator {
            operator if is_benchmark(operator) || evaluating(&task.name) => 3,
            Operator::Train(_) | Operator::Reference(_) | Operator::Sft(_) | Operator::RewardModel(_) => 2,
            Operator::Generate(_) => 0,
            // A program that makes a model trains it.
            Operator::Command(_) if !task.output().is_table() => 2,
            _ => 1,
        };
        row.seconds[stage] += seconds(&events, &task.name, task.iteration);
    }
    if !session.tables().contains(&evaluation.name) {
        return Ok(rows);
    }
    let name = evaluation.name.replace('"', "\"\"");
    let batches = session.query(&format!(
        "SELECT CAST(iteration AS DOUBLE) AS t, avg(reward), avg(baseline_reward),
       50 + 50 * avg(CASE outcome WHEN 'win' THEN 1.0 WHEN 'loss' THEN -1.0 ELSE 0.0 END), avg(nll_initial), avg(baseline_nll_initial)
FROM \"{name}\" GROUP BY iteration ORDER BY iteration"
    ))?;
    for batch in &batches {
        let column = |index: usize| batch.column(index).as_primitive::<Float64Type>();
        for index in 0..batch.num_rows() {
            let value = |of: usize| column(of).is_valid(index).then(|| column(of).value(index));
            if let Some(row) = rows.get_mut(column(0).value(index) as usize) {
                (row.reward, row.win_score, row.nll) = (value(1), value(3), value(4));
            }
            (rows[0].reward, rows[0].nll) = (value(2), value(5));
        }
    }
    Ok(rows)
}

/// Seconds spent on a node, over all calls: finished, failed or interrupted ones. A killed one
/// leaves no trace.
fn seconds(events: &[Event], node: &str, iteration: Option<u32>) -> f64 {
    let ended = |event: &&Event| matches!(event.event, EventKind::NodeDone | EventKind::NodeFailed | EventKind::Interrupted);
    events.iter().filter(ended).filter(|event| event.node == node && event.iteration == iteration).filter_map(|event| event.seconds).sum()
}

impl Row {
    pub(super) fn reward(&self) -> Option<f64> {
        self.reward
    }

    pub(super) fn win_score(&self) -> Option<f64> {
        self.win_score
    }

    /// The row's cells, each as wide as its title.
    pub(super) fn line(&self) -> String {
        let whole = |value: Option<i64>| value.map_or("-".to_string(), |value| value.to_string());
        let number = |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |value| format!("{value:.digits$}"));
        let mut cells = vec![self.iteration.to_string(), whole(self.regenerated), whole(self.tokens)];
        cells.extend(self.seconds.map(|seconds| format!("{seconds:.1}")));
        cells.extend([number(self.reward, 4), number(self.win_score, 1), number(self.nll, 3)]);
        let cells = TITLES.iter().zip(cells).map(|(title, cell)| format!("{cell:>width$}", width = title.len()));
        cells.collect::<Vec<_>>().join("  ")
    }

    pub(super) fn to_json(&self) -> Value {
        let [generate, score, train, evaluate] = self.seconds;
        json!({
            "iteration": self.iteration, "regenerated": self.regenerated, "tokens": self.tokens,
            "seconds": { "generate": generate, "score": score, "train": train, "evaluate": evaluate },
            "reward": self.reward, "win_score": self.win_score, "nll_initial": self.nll,
        })
    }
}
