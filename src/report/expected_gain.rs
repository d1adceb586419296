//! Did the gain come? What selections expected of new responses, beside what these gained.
//!
//! Knows the view `expected_gain`, not how a gain is predicted.

use serde::Deserialize;

use super::block::{Block, Chart, Marks, Section, Series, Table};
use super::error::ReportError;
use super::source::Source;
use super::statistics::{Interval, mean, stretches};
use super::words::{interval, maybe, whole};

/// Groups of prompts with similar predictions.
const GROUPS: usize = 10;

/// One prompt in one selection.
#[derive(Deserialize)]
struct Row {
    node: String,
    objective: String,
    expected_gain: f64,
    gain: f64,
}

/// The section; `None` without a prediction and the rewards after it.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    if !source.has_view("expected_gain") {
        return Ok(None);
    }
    let rows: Vec<Row> = source.rows(
        "SELECT node, objective, expected_gain, gain FROM expected_gain ORDER BY node, objective, expected_gain, iteration, prompt_id",
    )?;
    let lead = "What the selections expected of new responses, and what these gained: how far they raised the best reward of their prompt, \
                or widened its gap. Prompts are grouped by their prediction. On the line, the gain came as expected.";
    let mut section = Section::new("expected-gain", "Expected gain", lead);
    let same = |one: &Row, other: &Row| (&one.node, &one.objective) == (&other.node, &other.objective);
    for rows in rows.chunk_by(same) {
        section.blocks.extend(blocks(rows));
    }
    Ok((!section.blocks.is_empty()).then_some(section))
}

/// The chart and the table of one selection node. `rows` are in the order of their predictions.
fn blocks(rows: &[Row]) -> Vec<Block> {
    let Some(first) = rows.first() else { return Vec::new() };
    let title = format!("{}: {}", first.node, if first.objective == "gap" { "gap of best and worst" } else { "best reward" });
    let mut table = Table::new(&title, &["#group", "#prompts", "#expected gain", "#gain"]);
    let mut points = Vec::new();
    for (index, stretch) in stretches(rows.len(), GROUPS).enumerate() {
        let group = &rows[stretch];
        let expected = mean(&group.iter().map(|row| row.expected_gain).collect::<Vec<_>>());
        let gains: Vec<f64> = group.iter().map(|row| row.gain).collect();
        let gain = Interval::of(&gains, &format!("expected gain {title} {index}"));
        points.extend(expected.zip(gain).map(|(expected, gain)| Series::point(expected, gain)));
        table.rows.push(vec![(index + 1).to_string(), whole(group.len() as i64), maybe(expected), interval(gain)]);
    }
    let ends = [rows.first(), rows.last()].into_iter().flatten().map(|row| Series::plain(row.expected_gain, row.expected_gain));
    let series = vec![Series { name: "gain".to_string(), points }, Series { name: "as expected".to_string(), points: ends.collect() }];
    let colors = series.iter().map(|series| series.name.clone()).collect();
    let chart = Chart {
        title,
        note: "a point is a tenth of the prompts; the band is a 95 % interval of its mean".to_string(),
        x: "expected gain".to_string(),
        y: "gain".to_string(),
        marks: Marks::Lines { series, colors, rule: None, breaks: Vec::new(), range: None, whole: false },
    };
    vec![Block::Charts { charts: vec![chart] }, Block::Table(table)]
}
