//! What tuning kept, at the end of a run: the primary metric of each task of each benchmark.

use serde_json::{Value, json};

use super::error::CliError;
use crate::pipeline::graph::Graph;
use crate::pipeline::spec::operator::Operator;
use crate::store::Run;
use crate::tables::benchmark;

/// A metric in one iteration.
pub(super) struct Kept {
    node: String,
    iteration: Option<u32>,
    row: benchmark::Row,
}

/// The primary metrics of all finished benchmarks, in the graph's order.
pub(super) fn kept(run: &Run, graph: &Graph) -> Result<Vec<Kept>, CliError> {
    let mut kept = Vec::new();
    for task in graph.tasks.iter().filter(|task| matches!(task.operator, Operator::Benchmark(_))) {
        let key = task.output_key();
        if run.manifest(&key)?.is_none_or(|manifest| !manifest.complete) {
            continue;
        }
        for batch in run.read_table(&key, task.table_kind())? {
            let rows = benchmark::rows(&batch).map_err(|error| CliError::Failed(error.to_string()))?;
            let primary = rows.into_iter().filter(|row| row.primary);
            kept.extend(primary.map(|row| Kept { node: task.name.clone(), iteration: task.iteration, row }));
        }
    }
    kept.sort_by(|one, other| (&one.node, &one.row.task, one.iteration).cmp(&(&other.node, &other.row.task, other.iteration)));
    Ok(kept)
}

/// The lines of the summary; none without a benchmark.
pub(super) fn lines(kept: &[Kept]) -> Vec<String> {
    if kept.is_empty() {
        return Vec::new();
    }
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let names = width(&mut kept.iter().map(|Kept { node, row, .. }| node.len() + 1 + row.task.len())).max("benchmark".len());
    let metrics = width(&mut kept.iter().map(|kept| kept.row.metric.len())).max("metric".len());
    let title =
        format!("{:names$}  {:metrics$}  {:>9}  {:>8}  {:>8}  change (95 %)", "benchmark", "metric", "iteration", "value", "baseline");
    let mut lines = vec![title];
    for Kept { node, iteration, row } in kept {
        let change = match (row.change, row.change_low, row.change_high) {
            (Some(change), Some(low), Some(high)) => format!("{change:+.4} ({low:+.4} to {high:+.4})"),
            _ => "-".to_string(),
        };
        let iteration = iteration.map_or("-".to_string(), |iteration| iteration.to_string());
        let baseline = row.baseline.map_or("-".to_string(), |baseline| format!("{baseline:.4}"));
        let name = format!("{node} {}", row.task);
        lines.push(format!("{name:names$}  {:metrics$}  {iteration:>9}  {:>8.4}  {baseline:>8}  {change}", row.metric, row.value));
    }
    lines.push("change: the mean over items of policy minus baseline; its interval is a bootstrap over items\n".to_string());
    lines
}

/// The same for programs.
pub(super) fn to_json(kept: &[Kept]) -> Vec<Value> {
    let value = |Kept { node, iteration, row }: &Kept| {
        json!({
            "benchmark": node, "task": row.task, "metric": row.metric, "iteration": iteration, "items": row.items, "value": row.value,
            "baseline": row.baseline, "change": row.change, "change_low": row.change_low, "change_high": row.change_high,
        })
    };
    kept.iter().map(value).collect()
}
