//! Held-out prompts: rewards, win scores, lengths and the divergence from the initial policy, with
//! intervals over prompts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::alarms;
use super::block::{Block, Chart, Marks, Section, Series, Table};
use super::error::ReportError;
use super::prompts::Asking;
use super::rewards::some_of;
use super::source::{Source, quoted};
use super::statistics::Interval;
use super::words::{interval, percent, whole};
use crate::tables::TableKind;

/// The most groups with a curve of their own.
const MOST_GROUPS: usize = 8;

/// One held-out prompt in one iteration.
#[derive(Clone, Deserialize)]
struct Row {
    iteration: i64,
    reward: f64,
    baseline_reward: f64,
    outcome: String,
    token_count: f64,
    truncated: f64,
    nll_initial: f64,
    baseline_nll_initial: f64,
    group: Option<String>,
}

/// An iteration's evaluation.
pub struct Evaluated {
    /// The iteration; 0 where there is none.
    pub iteration: i64,
    /// The mean reward.
    pub reward: Option<Interval>,
    /// 50 + 50 · (wins − losses) / prompts.
    pub win_score: Option<Interval>,
    rows: Vec<Row>,
}

/// The iterations of a table of an `evaluate` node: of its first baseline, or of a further one.
///
/// # Errors
/// The table cannot be read.
pub fn evaluated(source: &Source, node: &str) -> Result<Vec<Evaluated>, ReportError> {
    if !source.has(node) {
        return Ok(Vec::new());
    }
    let groups = format!("{node} groups");
    let grouped = match Asking::of(source, node)? {
        Some(asking) => asking.register_groups(source, &groups)?,
        None => false,
    };
    let (group, join) = if grouped {
        ("g.\"group\"", format!("LEFT JOIN {} AS g ON g.prompt_id = e.prompt_id", quoted(&groups)))
    } else {
        ("CAST(NULL AS VARCHAR)", String::new())
    };
    let rows: Vec<Row> = source.rows(&format!(
        "SELECT {iteration} AS iteration, reward, baseline_reward, outcome, token_count, truncated, nll_initial, baseline_nll_initial,
       {group} AS \"group\"
FROM {table} AS e {join} ORDER BY 1, e.prompt_id",
        iteration = source.iteration_of(node),
        table = quoted(node),
    ))?;
    let by_iteration = rows.chunk_by(|one, other| one.iteration == other.iteration);
    Ok(by_iteration
        .filter_map(|rows| {
            let iteration = rows.first()?.iteration;
            // The same draws in every iteration, so that a baseline's interval is the same in all.
            let (reward, win_score) = (of(rows, "Held-out reward", |row| row.reward), of(rows, "Win score", Row::win_score));
            Some(Evaluated { iteration, reward, win_score, rows: rows.to_vec() })
        })
        .collect())
}

impl Row {
    fn win_score(&self) -> f64 {
        match self.outcome.as_str() {
            "win" => 100.0,
            "loss" => 0.0,
            _ => 50.0,
        }
    }
}

fn of(rows: &[Row], seed: &str, value: fn(&Row) -> f64) -> Option<Interval> {
    Interval::of(&rows.iter().map(value).collect::<Vec<_>>(), seed)
}

impl Evaluated {
    fn of(&self, name: &str, value: fn(&Row) -> f64) -> Option<Interval> {
        of(&self.rows, name, value)
    }

    fn share(&self, outcome: &str) -> f64 {
        self.rows.iter().filter(|row| row.outcome == outcome).count() as f64 / self.rows.len().max(1) as f64
    }

    /// The baseline's mean reward on the same prompts.
    pub fn baseline(&self) -> Option<Interval> {
        self.of("Held-out reward", |row| row.baseline_reward)
    }

    /// Nats a token of the responses under the initial policy.
    pub fn nll(&self) -> Option<Interval> {
        self.of("NLL under the initial policy", |row| row.nll_initial)
    }
}

/// The section of one such table; `None` before anything is evaluated.
///
/// # Errors
/// As [`evaluated`].
pub fn section(source: &Source, node: &str, id: &str) -> Result<Option<Section>, ReportError> {
    let all = evaluated(source, node)?;
    let Some(last) = all.last() else { return Ok(None) };
    let lead = format!(
        "The policy against the baseline on {} held-out prompts. Bands and brackets: 95 % bootstrap intervals over prompts.",
        whole(last.rows.len() as i64)
    );
    let title = if source.tables(TableKind::Evaluation).len() > 1 { format!("Evaluation: {node}") } else { "Evaluation".to_string() };
    let charts = vec![
        curves(&all, "Held-out reward", "mean reward", |row| row.reward, Some(|row| row.baseline_reward), None),
        curves(&all, "Win score", "50 + 50 · (wins − losses) / prompts", Row::win_score, None, Some(50.0)),
        curves(&all, "NLL under the initial policy", "nats a token", |row| row.nll_initial, Some(|row| row.baseline_nll_initial), None),
        curves(&all, "Response length", "tokens", |row| row.token_count, None, None),
    ];
    let mut section = Section::new(id, title, lead);
    section.blocks.extend(alarms::blocks(source, node)?);
    section = section
        .with(Block::Charts { charts })
        .with(Block::Table(table(&all)))
        .note("NLL: nats a token of the responses under the initial policy; it rises first when training over-optimises.");
    for block in by_group(&all) {
        section = section.with(block);
    }
    Ok(Some(section))
}

fn curves(all: &[Evaluated], title: &str, y: &str, value: fn(&Row) -> f64, baseline: Option<fn(&Row) -> f64>, rule: Option<f64>) -> Chart {
    let series = |name: &str, value: fn(&Row) -> f64| {
        let points = all.iter().filter_map(|one| Some(Series::point(one.iteration as f64, one.of(title, value)?)));
        Series { name: name.to_string(), points: points.collect() }
    };
    let mut all_series = vec![series("policy", value)];
    all_series.extend(baseline.map(|value| series("baseline", value)));
    chart(title, y, all_series, rule)
}

fn chart(title: &str, y: &str, series: Vec<Series>, rule: Option<f64>) -> Chart {
    let colors = series.iter().map(|series| series.name.clone()).collect();
    let marks = Marks::Lines { series, colors, rule, breaks: Vec::new(), range: None, whole: true };
    Chart { title: title.to_string(), note: String::new(), x: "iteration".to_string(), y: y.to_string(), marks }
}

fn table(all: &[Evaluated]) -> Table {
    let columns = ["#iteration", "#reward", "#baseline", "#win score", "#wins", "#ties", "#losses", "#tokens", "#cut by the limit", "#NLL"];
    let mut table = Table::new("By iteration", &columns);
    for one in all {
        let mean = |value: fn(&Row) -> f64| one.rows.iter().map(value).sum::<f64>() / one.rows.len().max(1) as f64;
        table.rows.push(vec![
            one.iteration.to_string(),
            interval(one.reward),
            interval(one.baseline()),
            interval(one.win_score),
            percent(one.share("win")),
            percent(one.share("tie")),
            percent(one.share("loss")),
            format!("{:.1}", mean(|row| row.token_count)),
            percent(mean(|row| row.truncated)),
            interval(one.nll()),
        ]);
    }
    table
}

/// Rewards of each group of prompts; nothing where prompts have no groups, or all the same.
fn by_group(all: &[Evaluated]) -> Vec<Block> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for group in all.last().into_iter().flat_map(|last| &last.rows).filter_map(|row| row.group.as_deref()) {
        *counts.entry(group).or_default() += 1;
    }
    if counts.len() < 2 {
        return Vec::new();
    }
    let mut groups: Vec<(&str, usize)> = counts.into_iter().collect();
    groups.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let left_out = groups.len().saturating_sub(MOST_GROUPS);
    groups.truncate(MOST_GROUPS);

    let mean = |one: &Evaluated, group: &str, value: fn(&Row) -> f64| {
        let values: Vec<f64> = one.rows.iter().filter(|row| row.group.as_deref() == Some(group)).map(value).collect();
        Interval::of(&values, group)
    };
    let mut columns = vec!["group".to_string(), "#prompts".to_string(), "#baseline".to_string()];
    let shown = some_of(all.len());
    columns.extend(shown.iter().filter_map(|index| all.get(*index)).map(|one| format!("#iteration {}", one.iteration)));
    let mut table = Table { title: "Reward by group".to_string(), columns, ..Table::default() };
    let mut series = Vec::new();
    for (group, count) in groups {
        let baseline = all.last().and_then(|one| mean(one, group, |row| row.baseline_reward));
        let of_iterations: Vec<_> = all.iter().map(|one| (one.iteration, mean(one, group, |row| row.reward))).collect();
        let first = baseline.map(|baseline| Series::plain(0.0, baseline.mean));
        let later = of_iterations.iter().filter_map(|(iteration, mean)| Some(Series::plain(*iteration as f64, (*mean)?.mean)));
        series.push(Series { name: group.to_string(), points: first.into_iter().chain(later).collect() });
        let mut row = vec![group.to_string(), whole(count as i64), interval(baseline)];
        row.extend(shown.iter().filter_map(|index| of_iterations.get(*index)).map(|(_, mean)| interval(*mean)));
        table.rows.push(row);
    }
    let mut picture = chart("Held-out reward by group", "mean reward", series, None);
    picture.note = "iteration 0 is the baseline".to_string();
    let mut blocks = vec![Block::Charts { charts: vec![picture] }, Block::Table(table)];
    if left_out > 0 {
        blocks.push(Block::Note { text: format!("{left_out} groups with fewer prompts are left out.") });
    }
    blocks
}
