//! The results of a run's iterations against the tokens and the time spent until then.

use super::block::{Block, Chart, Marks, Section, Series, Table};
use super::cost::costs;
use super::error::ReportError;
use super::evaluation::{Evaluated, evaluated};
use super::source::Source;
use super::spending::Spending;
use super::statistics::Interval;
use super::words::{interval, missing, seconds, whole};

/// The horizontal axis of two charts: words for the title, the axis, and its value after an
/// iteration.
type Along = (&'static str, &'static str, fn(&Spending, i64) -> Option<f64>);

const ALONG: [Along; 2] = [
    ("by tokens sampled", "tokens sampled so far", |spending, iteration| Some(spending.tokens(iteration))),
    ("by seconds of the loop", "seconds of the loop so far", Spending::loop_seconds),
];

/// The section; `None` before an iteration is evaluated.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let Some(node) = source.with_operator("evaluate").next() else { return Ok(None) };
    let all: Vec<Evaluated> = evaluated(source, &node.name)?.into_iter().filter(|one| one.iteration > 0).collect();
    if all.is_empty() {
        return Ok(None);
    }
    let spending = Spending::new(costs(source)?, |_| None);
    let lead = "The held-out results of each evaluated iteration, against all that was spent until then. \
                Bands and brackets: 95 % bootstrap intervals over prompts.";
    let charts = ALONG.iter().flat_map(|along| {
        let baseline: Value = Evaluated::baseline;
        [
            chart("Held-out reward", "mean reward", &[("policy", |one| one.reward), ("baseline", baseline)], None, &all, &spending, along),
            chart(
                "Win score",
                "50 + 50 · (wins − losses) / prompts",
                &[("policy", |one| one.win_score)],
                Some(50.0),
                &all,
                &spending,
                along,
            ),
        ]
    });
    let charts: Vec<Chart> = charts.flatten().collect();
    let section =
        Section::new("quality", "Quality by cost", lead).with(Block::Charts { charts }).with(Block::Table(table(&all, &spending)));
    let words = "The loop: all nodes of the iterations but evaluations and benchmarks. Tokens: those of the responses sampled for the pool. \
                 The time of an output from the cache is not known here.";
    Ok(Some(section.note(words)))
}

/// A result of an iteration.
type Value = fn(&Evaluated) -> Option<Interval>;

/// A chart of some results; `None` where the place on its axis is not known.
fn chart(
    title: &str,
    y: &str,
    values: &[(&str, Value)],
    rule: Option<f64>,
    all: &[Evaluated],
    spending: &Spending,
    (words, x, at): &Along,
) -> Option<Chart> {
    let point = |one: &Evaluated, value: Value| Some(Series::point(at(spending, one.iteration)?, value(one)?));
    let series = values.iter().map(|(name, value)| {
        let points = all.iter().filter_map(|one| point(one, *value)).collect();
        Series { name: (*name).to_string(), points }
    });
    let series: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
    let colors = values.iter().map(|(name, _)| (*name).to_string()).collect();
    (!series.is_empty()).then(|| Chart {
        title: format!("{title} {words}"),
        note: String::new(),
        x: (*x).to_string(),
        y: y.to_string(),
        marks: Marks::Lines { series, colors, rule, breaks: Vec::new(), range: None, whole: false },
    })
}

fn table(all: &[Evaluated], spending: &Spending) -> Table {
    let columns = ["#iteration", "#held-out reward", "#win score", "#tokens sampled", "#the loop", "#on the device"];
    let mut table = Table::new("Until each iteration", &columns);
    for one in all {
        table.rows.push(vec![
            one.iteration.to_string(),
            interval(one.reward),
            interval(one.win_score),
            whole(spending.tokens(one.iteration) as i64),
            spending.loop_seconds(one.iteration).map_or_else(missing, seconds),
            spending.loop_device_seconds(one.iteration).map_or_else(missing, seconds),
        ]);
    }
    table
}
