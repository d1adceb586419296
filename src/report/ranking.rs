//! Reward models on held-out preferences.

use serde::Deserialize;

use super::block::{Block, Section, Table};
use super::error::ReportError;
use super::source::{Source, quoted};
use super::statistics::Interval;
use super::words::{interval, whole};
use crate::tables::TableKind;

#[derive(Deserialize)]
struct Row {
    iteration: i64,
    correct: bool,
    margin: f64,
}

/// The section; `None` where no reward model was trained.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let mut table = Table::new("", &["table", "#iteration", "#preferences", "#accuracy", "#mean margin"]);
    for name in source.tables(TableKind::Ranking) {
        let rows: Vec<Row> = source.rows(&format!(
            "SELECT {} AS iteration, correct, reward_chosen - reward_rejected AS margin FROM {} ORDER BY 1, preference_id",
            source.iteration_of(name),
            quoted(name)
        ))?;
        for rows in rows.chunk_by(|one, other| one.iteration == other.iteration) {
            let iteration = rows.first().map_or(0, |row| row.iteration);
            let of = |value: fn(&Row) -> f64| Interval::of(&rows.iter().map(value).collect::<Vec<_>>(), &format!("{name} {iteration}"));
            let accuracy = of(|row| if row.correct { 1.0 } else { 0.0 });
            let count = whole(rows.len() as i64);
            table.rows.push(vec![name.to_string(), iteration.to_string(), count, interval(accuracy), interval(of(|row| row.margin))]);
        }
    }
    let lead = "Of held-out preferences, the share in which the response to prefer has the higher reward.";
    Ok((!table.rows.is_empty()).then(|| Section::new("ranking", "Reward models", lead).with(Block::Table(table))))
}
