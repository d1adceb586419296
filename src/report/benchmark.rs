//! What tuning kept: the metrics of `benchmark` nodes, and each iteration's change against the
//! baseline.

use serde::Deserialize;

use super::block::{Block, Chart, Marks, Section, Series, Table};
use super::error::ReportError;
use super::source::{Source, quoted};
use super::statistics::Interval;
use super::words::{maybe, number, signed, whole};
use crate::tables::TableKind;

/// One metric in one iteration.
#[derive(Deserialize)]
struct Row {
    iteration: i64,
    task: String,
    metric: String,
    primary: bool,
    items: i64,
    value: f64,
    baseline: Option<f64>,
    change: Option<f64>,
    change_low: Option<f64>,
    change_high: Option<f64>,
}

/// The section; `None` where no benchmark was run.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let tables = source.tables(TableKind::Benchmark);
    let mut charts = Vec::new();
    let mut blocks = Vec::new();
    for name in &tables {
        let rows = rows(source, name)?;
        charts.extend(chart(name, &rows));
        blocks.push(Block::Table(table(if tables.len() > 1 { name } else { "" }, &rows)));
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    let lead = "The policy on benchmarks against the baseline. Changes: means over items of policy minus baseline, with 95 % bootstrap \
                intervals over items; both answered the same items.";
    let mut section = Section::new("benchmark", "What tuning kept", lead);
    if !charts.is_empty() {
        section = section.with(Block::Charts { charts });
    }
    Ok(Some(blocks.into_iter().fold(section, Section::with)))
}

/// The metrics of a table, by iteration, task and name.
fn rows(source: &Source, table: &str) -> Result<Vec<Row>, ReportError> {
    source.rows(&format!(
        "SELECT {iteration} AS iteration, task, metric, \"primary\", items, value, baseline, change, change_low, change_high
FROM {table} ORDER BY 1, task, metric",
        iteration = source.iteration_of(table),
        table = quoted(table)
    ))
}

/// The last value of each task's primary metric, for the overview.
///
/// # Errors
/// As [`section`].
pub fn facts(source: &Source) -> Result<Vec<(String, String, String)>, ReportError> {
    let mut facts = Vec::new();
    for name in source.tables(TableKind::Benchmark) {
        let rows = rows(source, name)?;
        let last = rows.iter().map(|row| row.iteration).max();
        facts.extend(rows.into_iter().filter(|row| row.primary && Some(row.iteration) == last).map(|row| {
            let after = if row.iteration > 0 { format!("after iteration {}; ", row.iteration) } else { String::new() };
            let change = row.change.map_or_else(|| "no baseline".to_string(), |change| format!("{} against the baseline", signed(change)));
            (format!("{} {} ({name})", row.task, row.metric), number(row.value), format!("{after}{change}"))
        }));
    }
    Ok(facts)
}

/// The change of each task's primary metric by iteration; `None` without iterations or a baseline.
fn chart(node: &str, rows: &[Row]) -> Option<Chart> {
    let mut series: Vec<Series> = Vec::new();
    for row in rows.iter().filter(|row| row.primary && row.iteration > 0) {
        let (Some(mean), Some(low), Some(high)) = (row.change, row.change_low, row.change_high) else { continue };
        let name = format!("{} {}", row.task, row.metric);
        let point = Series::point(row.iteration as f64, Interval { mean, low, high, count: 0 });
        match series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name, points: vec![point] }),
        }
    }
    let colors: Vec<String> = series.iter().map(|series| series.name.clone()).collect();
    let marks = Marks::Lines { series, colors, rule: Some(0.0), breaks: Vec::new(), range: None, whole: true };
    let title = format!("Change against the baseline: {node}");
    let is_empty = matches!(&marks, Marks::Lines { series, .. } if series.is_empty());
    let chart = Chart { title, note: String::new(), x: "iteration".to_string(), y: "change".to_string(), marks };
    if is_empty { None } else { Some(chart) }
}

fn table(title: &str, rows: &[Row]) -> Table {
    let mut table = Table::new(title, &["task", "metric", "#iteration", "#items", "#value", "#baseline", "#change", "#95 % interval"]);
    for row in rows {
        let interval = match (row.change_low, row.change_high) {
            (Some(low), Some(high)) => format!("{} to {}", signed(low), signed(high)),
            _ => maybe(None),
        };
        table.rows.push(vec![
            row.task.clone(),
            row.metric.clone(),
            row.iteration.to_string(),
            whole(row.items),
            maybe(Some(row.value)),
            maybe(row.baseline),
            row.change.map_or_else(|| maybe(None), signed),
            interval,
        ]);
    }
    table
}
