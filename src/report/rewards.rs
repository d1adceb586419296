//! How rewards are distributed, iteration by iteration.

use serde::Deserialize;

use super::block::{Block, Chart, Marks, Panel, Section, Table, round};
use super::error::ReportError;
use super::source::{Source, quoted};
use super::words::{maybe, whole};
use crate::tables::TableKind;

/// Bars of a histogram.
const BINS: u32 = 30;
/// The most histograms below each other.
const MOST_PANELS: usize = 8;

#[derive(Deserialize)]
struct Bin {
    iteration: i64,
    bin: i64,
    count: u64,
}

#[derive(Deserialize)]
struct Spread {
    iteration: i64,
    count: i64,
    mean: Option<f64>,
    deviation: Option<f64>,
    lowest: Option<f64>,
    q10: Option<f64>,
    median: Option<f64>,
    q90: Option<f64>,
    highest: Option<f64>,
}

/// The section; `None` before anything is scored.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let scored: Vec<&str> = source.tables(TableKind::Rewards);
    let scored = scored.into_iter().filter(|name| source.owner(name).is_none_or(|owner| owner.operator != "evaluate"));
    let tables: Vec<(&str, &str)> = scored
        .map(|name| (name, "Rewards of new responses"))
        .chain(source.tables(TableKind::Pool).into_iter().map(|name| (name, "Rewards in the pool, carried over ones included")))
        .collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let lead = "What the responses were worth. Rewards are comparable within a prompt; the distributions show where the policy moves.";
    let mut section = Section::new("rewards", "Rewards", lead);
    let mut charts = Vec::new();
    let mut spreads = Vec::new();
    for (name, what) in tables {
        charts.push(distribution(source, name, "reward", &format!("{what}: {name}"))?);
        spreads.push(spread(source, name)?);
    }
    section = section.with(Block::Charts { charts });
    for table in spreads {
        section = section.with(Block::Table(table));
    }
    Ok(Some(section))
}

/// Histograms of a column of a table, one an iteration; of many iterations the first, the last and
/// some between.
///
/// # Errors
/// The table cannot be read.
pub fn distribution(source: &Source, table: &str, column: &str, title: &str) -> Result<Chart, ReportError> {
    let name = quoted(table);
    let iteration = source.iteration_of(table);
    let spreads = spreads(source, table, column)?;
    let low = spreads.iter().filter_map(|spread| spread.lowest).fold(f64::INFINITY, f64::min);
    let high = spreads.iter().filter_map(|spread| spread.highest).fold(f64::NEG_INFINITY, f64::max);
    let width = if high > low { (high - low) / f64::from(BINS) } else { 1.0 };
    let bins: Vec<Bin> = if low.is_finite() && width.is_finite() {
        source.rows(&format!(
            "SELECT {iteration} AS iteration, least(CAST(floor(({column} - CAST({low:?} AS DOUBLE)) / CAST({width:?} AS DOUBLE)) AS BIGINT), {last}) AS bin,
       count(*) AS \"count\"
FROM {name} WHERE {column} IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
            last = BINS - 1,
        ))?
    } else {
        Vec::new()
    };
    let iterated = spreads.iter().any(|spread| spread.iteration > 0);
    let shown = some_of(spreads.len());
    let left_out = spreads.len() - shown.len();
    let edge = |bin: i64| round(low + width * bin as f64).unwrap_or_default();
    let panels = shown.into_iter().filter_map(|index| spreads.get(index)).map(|spread| Panel {
        name: if iterated { format!("iteration {}", spread.iteration) } else { String::new() },
        bins: bins
            .iter()
            .filter(|bin| bin.iteration == spread.iteration)
            .map(|bin| (edge(bin.bin), edge(bin.bin + 1), bin.count))
            .collect(),
        mean: spread.mean.and_then(round),
    });
    let note = match left_out {
        0 => "the line is the mean".to_string(),
        some => format!("the line is the mean; {some} iterations between those are left out"),
    };
    let words = column.replace('_', " ");
    Ok(Chart { title: title.to_string(), note, x: words, y: "count".to_string(), marks: Marks::Histograms { panels: panels.collect() } })
}

/// The iterations to show, out of `count`, where there is room for few: the first, the last and
/// some between.
pub fn some_of(count: usize) -> Vec<usize> {
    match count {
        few if few <= MOST_PANELS => (0..few).collect(),
        many => (0..MOST_PANELS).map(|index| index * (many - 1) / (MOST_PANELS - 1)).collect(),
    }
}

fn spreads(source: &Source, table: &str, column: &str) -> Result<Vec<Spread>, ReportError> {
    let quantile = |share: f64| format!("approx_percentile_cont({share}) WITHIN GROUP (ORDER BY {column})");
    source.rows(&format!(
        "SELECT {iteration} AS iteration, count({column}) AS \"count\", avg({column}) AS mean, stddev({column}) AS deviation, min({column}) AS lowest,
       {q10} AS q10, {median} AS median, {q90} AS q90, max({column}) AS highest
FROM {name} GROUP BY 1 ORDER BY 1",
        iteration = source.iteration_of(table),
        name = quoted(table),
        q10 = quantile(0.1),
        median = quantile(0.5),
        q90 = quantile(0.9),
    ))
}

fn spread(source: &Source, name: &str) -> Result<Table, ReportError> {
    let columns = ["#iteration", "#responses", "#mean", "#deviation", "#lowest", "#10 %", "#median", "#90 %", "#highest"];
    let mut table = Table::new(&format!("By iteration: {name}"), &columns);
    table.folded = true;
    for spread in spreads(source, name, "reward")? {
        let mut row = vec![spread.iteration.to_string(), whole(spread.count)];
        let values = [spread.mean, spread.deviation, spread.lowest, spread.q10, spread.median, spread.q90, spread.highest];
        row.extend(values.map(maybe));
        table.rows.push(row);
    }
    Ok(table)
}
