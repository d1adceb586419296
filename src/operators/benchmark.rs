//! benchmark: what tuning kept. Each metric of the policy and of the baseline, and the change with
//! its interval over items; then the guard.
//!
//! Knows neither questions nor models.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::{Benchmark, OnDrop};
use crate::statistics::{Interval, mean};
use crate::tables::{TableKind, benchmark, items};

/// This module in internal errors.
const PLACE: &str = "operators::benchmark";

/// Compares the graded answers of policy and baseline.
pub(super) fn run(context: &Context, settings: &Benchmark) -> Result<Summary, OperatorError> {
    let policy = by_task(context.rows(Slot::Graded, items::rows)?);
    let baseline = by_task(context.rows(Slot::BaselineGraded, items::rows)?);
    let primary = settings.primary_metrics();
    let no_rows = Vec::new();
    let mut rows = Vec::new();
    for (task, graded) in &policy {
        let of_baseline = baseline.get(task).unwrap_or(&no_rows);
        let primary = primary.get(task).map_or("", String::as_str);
        let metrics: BTreeSet<&str> = graded.iter().flat_map(|row| row.scores.keys().map(String::as_str)).collect();
        if !metrics.contains(primary) {
            let found = metrics.into_iter().collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() { "no item has a score".to_string() } else { format!("found {found}") };
            return Err(OperatorError::Input(format!("task {task}: expected scores by its primary metric {primary}, {found}")));
        }
        rows.extend(metrics.into_iter().filter_map(|metric| row(task, metric, metric == primary, graded, of_baseline)));
    }
    if rows.is_empty() {
        return Err(OperatorError::internal(PLACE, "no task has a graded answer"));
    }
    let mut writer = context.writer(Some(TableKind::Benchmark), rows.len(), rows.len())?;
    for part in writer.missing() {
        writer.commit(part, &benchmark::batch(rows_of(&rows, writer.rows_of(part), PLACE)?))?;
    }
    // The table is there for people before the guard fails the node.
    guard(context, settings, &rows)?;
    writer.finish(BTreeMap::from([("metrics".to_string(), rows.len() as i64)]))?;
    let shown = rows.iter().filter(|row| row.primary).map(|row| format!("{} {}", row.task, summary(row)));
    Ok(Summary::new(shown.collect::<Vec<_>>().join("; ")))
}

/// The graded answers of each task, in the order of its items.
fn by_task(rows: Vec<items::Row>) -> BTreeMap<String, Vec<items::Row>> {
    let mut tasks: BTreeMap<String, Vec<items::Row>> = BTreeMap::new();
    for row in rows {
        tasks.entry(row.task.clone()).or_default().push(row);
    }
    tasks
}

/// A metric of a task. `None` without any score.
fn row(task: &str, metric: &str, primary: bool, policy: &[items::Row], baseline: &[items::Row]) -> Option<benchmark::Row> {
    let score = |row: &items::Row| row.scores.get(metric).copied();
    let scores: Vec<f64> = policy.iter().filter_map(score).collect();
    let of_baseline: HashMap<i64, f64> = baseline.iter().filter_map(|row| Some((row.item, score(row)?))).collect();
    let baseline_scores: Vec<f64> = baseline.iter().filter_map(score).collect();
    let changes: Vec<f64> = policy.iter().filter_map(|row| Some(score(row)? - of_baseline.get(&row.item)?)).collect();
    // The same draws of items in every iteration.
    let change = Interval::of(&changes, &format!("{task} {metric}"));
    Some(benchmark::Row {
        task: task.to_string(),
        metric: metric.to_string(),
        primary,
        items: scores.len() as i64,
        failed: (policy.len() - scores.len()) as i64,
        value: mean(&scores)?,
        baseline: mean(&baseline_scores),
        change: change.map(|change| change.mean),
        change_low: change.map(|change| change.low),
        change_high: change.map(|change| change.high),
    })
}

/// A metric for people: `acc 0.412 (-0.013, 95 %: -0.030 to 0.004)`.
fn summary(row: &benchmark::Row) -> String {
    let value = format!("{} {:.3}", row.metric, row.value);
    match (row.change, row.change_low, row.change_high) {
        (Some(change), Some(low), Some(high)) => format!("{value} ({change:+.3}, 95 %: {low:+.3} to {high:+.3})"),
        _ => value,
    }
}

/// Tells losses beyond the guard's.
fn guard(context: &Context, settings: &Benchmark, rows: &[benchmark::Row]) -> Result<(), OperatorError> {
    let Some(guard) = settings.guard else { return Ok(()) };
    let lost = |row: &&benchmark::Row| row.primary && row.change.is_some_and(|change| -change > guard.max_drop);
    let losses: Vec<String> = rows.iter().filter(lost).map(|row| format!("{} {}", row.task, summary(row))).collect();
    if losses.is_empty() {
        return Ok(());
    }
    let problem = format!("tuning lost more than max_drop {}: {}", guard.max_drop, losses.join("; "));
    match guard.on_drop {
        OnDrop::Warn => {
            let advice = "a higher beta, a lower learning rate or fewer epochs change the policy less";
            context.progress.warned(&context.task.label(), &format!("{problem}; {advice}"));
            Ok(())
        }
        OnDrop::Stop => {
            let advice = "the policies so far are kept; go on with a higher `max_drop` or with `on_drop: warn`, or change the policy less: \
                          a higher beta, a lower learning rate, fewer epochs";
            Err(OperatorError::Failed(format!("{problem}; {advice}")))
        }
    }
}
