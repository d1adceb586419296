//! Training curves: loss, margin, accuracy, divergence, gradient and learning rate, step by step
//! through all iterations.

use serde::Deserialize;

use super::block::{Block, Chart, Marks, Section, Series, Table};
use super::error::ReportError;
use super::source::{Source, quoted};
use super::statistics::{mean, stretches};
use super::words::{maybe, whole};
use crate::tables::TableKind;

/// The most points of a curve.
const MOST_POINTS: usize = 400;

/// One update.
#[derive(Deserialize)]
struct Row {
    iteration: i64,
    loss: f64,
    reward_margin: Option<f64>,
    accuracy: Option<f64>,
    kl: Option<f64>,
    gradient_norm: f64,
    learning_rate: f64,
    tokens: i64,
}

type Metric = (&'static str, &'static str, fn(&Row) -> Option<f64>);

/// The curves: title, axis, value.
const METRICS: [Metric; 6] = [
    ("Loss", "mean of the batch", |row| Some(row.loss)),
    ("Reward margin", "chosen − rejected", |row| row.reward_margin),
    ("Accuracy", "share of margins above 0", |row| row.accuracy),
    ("KL", "nats, from the reference", |row| row.kl),
    ("Gradient norm", "before clipping", |row| Some(row.gradient_norm)),
    ("Learning rate", "", |row| Some(row.learning_rate)),
];

/// The section; `None` before anything is trained.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let mut section = Section::new("training", "Training", "One point an optimizer step; dashed lines are where an iteration ends.");
    // Training in the loop comes first.
    let mut tables = source.tables(TableKind::Training);
    tables.sort_by_key(|table| source.iteration_of(table).contains("(0"));
    for table in tables {
        let rows: Vec<Row> = source.rows(&format!(
            "SELECT {} AS iteration, loss, reward_margin, accuracy, kl, gradient_norm, learning_rate, tokens FROM {} ORDER BY 1, step",
            source.iteration_of(table),
            quoted(table)
        ))?;
        let name = source.owner(table).map_or(table, |owner| owner.name.as_str());
        section = section.with(Block::Charts { charts: charts(&rows, name) }).with(Block::Table(summary(&rows, name)));
        if rows.len() > MOST_POINTS {
            section = section.note(format!("{name}: {} steps, drawn as {MOST_POINTS} means of neighbours.", whole(rows.len() as i64)));
        }
    }
    Ok((!section.blocks.is_empty()).then_some(section))
}

fn charts(rows: &[Row], name: &str) -> Vec<Chart> {
    // The step after which an iteration ends.
    let breaks: Vec<f64> =
        (1..rows.len()).filter(|index| rows[index - 1].iteration != rows[*index].iteration).map(|index| index as f64).collect();
    let chart = |(title, y, value): &Metric| {
        let points: Vec<_> = stretches(rows.len(), MOST_POINTS)
            .filter_map(|range| {
                let middle = (range.start + range.end + 1) as f64 / 2.0;
                let values: Vec<f64> = rows.get(range)?.iter().filter_map(value).collect();
                Some(Series::plain(middle, mean(&values)?))
            })
            .collect();
        let marks = Marks::Lines {
            series: vec![Series { name: name.to_string(), points }],
            colors: vec![name.to_string()],
            rule: None,
            breaks: breaks.clone(),
            range: None,
            whole: true,
        };
        Chart { title: format!("{title}: {name}"), note: String::new(), x: "step".to_string(), y: (*y).to_string(), marks }
    };
    let there = METRICS.iter().filter(|(_, _, value)| rows.iter().any(|row| value(row).is_some()));
    there.map(chart).collect()
}

fn summary(rows: &[Row], name: &str) -> Table {
    let columns =
        ["#iteration", "#steps", "#tokens", "#first loss", "#last loss", "#last margin", "#last accuracy", "#last KL", "#largest gradient"];
    let mut table = Table::new(&format!("By iteration: {name}"), &columns);
    for rows in rows.chunk_by(|one, other| one.iteration == other.iteration) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            debug_assert!(false, "a chunk has at least one row");
            continue;
        };
        table.rows.push(vec![
            first.iteration.to_string(),
            whole(rows.len() as i64),
            whole(rows.iter().map(|row| row.tokens).sum()),
            maybe(Some(first.loss)),
            maybe(Some(last.loss)),
            maybe(last.reward_margin),
            maybe(last.accuracy),
            maybe(last.kl),
            maybe(rows.iter().map(|row| row.gradient_norm).reduce(f64::max)),
        ]);
    }
    table.folded = true;
    table
}
