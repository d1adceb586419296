//! The regenerated prompts and their gains: the reward of a prompt's responses before and after an
//! iteration.

use serde::Deserialize;

use super::block::{Arrow, Block, Chart, Marks, Panel, Section, Table, round};
use super::error::ReportError;
use super::outline::Node;
use super::source::{Source, quoted};
use super::statistics::{Interval, histogram, mean};
use super::words::{interval, maybe, percent, signed, whole};

/// The most lines with an arrow, and the most histograms below each other.
const MOST_ARROWS: usize = 24;
const MOST_PANELS: usize = 8;

/// One prompt in one iteration after the first.
#[derive(Deserialize)]
struct Row {
    iteration: i64,
    selected: bool,
    before: f64,
    after: f64,
}

/// The section; `None` where nothing was selected, or before the second iteration.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let lead = "Mean reward of a prompt's responses in the pool before an iteration and after it. Prompts that are carried over keep theirs; \
                what new responses gain is partly regression to the mean, as prompts are often selected for low rewards.";
    let mut section = Section::new("regeneration", "Regeneration", lead);
    for select in source.with_operator("select") {
        let pools = source
            .with_operator("merge")
            .filter(|pool| source.upstream(&pool.name, "select").is_some_and(|other| other.name == select.name))
            .filter(|pool| !is_step(source, &pool.name));
        for pool in pools.filter(|pool| source.has(&pool.name) && source.has(&select.name)) {
            let rows = rows(source, select, pool)?;
            if let Some(blocks) = blocks(&rows, &select.name) {
                section.blocks.extend(blocks);
            }
        }
    }
    Ok((!section.blocks.is_empty()).then_some(section))
}

/// The mean gain of all prompts that were regenerated after the first iteration; `None` if there
/// are none.
///
/// # Errors
/// A table cannot be read.
pub fn mean_gain(source: &Source) -> Result<Option<f64>, ReportError> {
    let Some(select) = source.with_operator("select").next() else { return Ok(None) };
    let of_select = |pool: &&Node| source.upstream(&pool.name, "select").is_some_and(|other| other.name == select.name);
    let pool = source
        .with_operator("merge")
        .filter(|pool| !is_step(source, &pool.name))
        .find(of_select)
        .filter(|pool| source.has(&pool.name) && source.has(&select.name));
    let rows = pool.map_or(Ok(Vec::new()), |pool| rows(source, select, pool))?;
    Ok(mean(&rows.iter().filter(|row| row.selected).map(|row| row.after - row.before).collect::<Vec<_>>()))
}

/// Whether a pool has the first responses of an iteration only, for a selection within it.
fn is_step(source: &Source, pool: &str) -> bool {
    let reads = |node: &Node, slot: &str| node.reads.iter().find(|read| read.slot == slot).map(|read| (read.name.clone(), read.last));
    source.with_operator("select").any(|select| reads(select, "pool") == Some((pool.to_string(), false)))
}

fn rows(source: &Source, select: &Node, pool: &Node) -> Result<Vec<Row>, ReportError> {
    if !source.columns(&select.name).iter().any(|column| column == "iteration") {
        return Ok(Vec::new());
    }
    source.rows(&format!(
        "WITH means AS (SELECT CAST(iteration AS BIGINT) AS iteration, prompt_id, avg(reward) AS reward FROM {pool} GROUP BY 1, 2)
SELECT CAST(s.iteration AS BIGINT) AS iteration, s.selected, before.reward AS before, after.reward AS after
FROM {selection} AS s
JOIN means AS before ON before.prompt_id = s.prompt_id AND before.iteration = CAST(s.iteration AS BIGINT) - 1
JOIN means AS after ON after.prompt_id = s.prompt_id AND after.iteration = CAST(s.iteration AS BIGINT)
ORDER BY 1, 2 DESC, s.prompt_id",
        pool = quoted(&pool.name),
        selection = quoted(&select.name),
    ))
}

fn blocks(rows: &[Row], select: &str) -> Option<Vec<Block>> {
    let mut table = Table::new(
        &format!("By iteration: {select}"),
        &["#iteration", "prompts", "#count", "#before", "#after", "#gain", "#better", "#same", "#worse"],
    );
    let mut arrows = Vec::new();
    let mut panels = Vec::new();
    let gains = |rows: &[Row]| rows.iter().map(|row| row.after - row.before).collect::<Vec<f64>>();
    let regenerated: Vec<f64> = rows.iter().filter(|row| row.selected).map(|row| row.after - row.before).collect();
    let low = regenerated.iter().copied().fold(f64::INFINITY, f64::min);
    let high = regenerated.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for rows in rows.chunk_by(|one, other| (one.iteration, one.selected) == (other.iteration, other.selected)) {
        let first = rows.first()?;
        let who = if first.selected { "regenerated" } else { "carried over" };
        let of = |value: fn(&Row) -> f64| mean(&rows.iter().map(value).collect::<Vec<_>>());
        let (before, after, gains) = (of(|row| row.before), of(|row| row.after), gains(rows));
        let share = |is: fn(f64) -> bool| percent(gains.iter().filter(|gain| is(**gain)).count() as f64 / gains.len() as f64);
        let gain = Interval::of(&gains, &format!("gain {} {}", first.iteration, first.selected));
        table.rows.push(vec![
            first.iteration.to_string(),
            who.to_string(),
            whole(rows.len() as i64),
            maybe(before),
            maybe(after),
            interval(gain),
            share(|gain| gain > 0.0),
            share(|gain| gain == 0.0),
            share(|gain| gain < 0.0),
        ]);
        let ends = before.and_then(round).zip(after.and_then(round));
        arrows.extend(ends.map(|(before, after)| Arrow {
            name: format!("{}, {who}", first.iteration),
            color: who.to_string(),
            before,
            after,
            detail: format!("{} prompts, {}", whole(rows.len() as i64), signed(after - before)),
        }));
        if first.selected && high > low {
            let bins = histogram(&gains, low, high, 30).into_iter().filter(|(_, _, count)| *count > 0);
            let bins = bins.map(|(from, to, count)| (round(from).unwrap_or_default(), round(to).unwrap_or_default(), count)).collect();
            panels.push(Panel { name: format!("iteration {}", first.iteration), bins, mean: mean(&gains).and_then(round) });
        }
    }
    // The last iterations, where there are many.
    let left_out = arrows.len().saturating_sub(MOST_ARROWS);
    arrows.drain(..left_out);
    panels.drain(..panels.len().saturating_sub(MOST_PANELS));
    let note = if left_out > 0 { "from the ring to the dot; the last iterations" } else { "from the ring to the dot" };
    let chart = |title: &str, note: &str, x: &str, y: &str, marks| Chart {
        title: title.to_string(),
        note: note.to_string(),
        x: x.to_string(),
        y: y.to_string(),
        marks,
    };
    let mut charts = vec![chart("Reward before and after", note, "mean reward", "", Marks::Arrows { arrows })];
    if !panels.is_empty() {
        charts.push(chart(
            "Gain of regenerated prompts",
            "the line is the mean",
            "reward after − before",
            "prompts",
            Marks::Histograms { panels },
        ));
    }
    (!table.rows.is_empty()).then(|| vec![Block::Charts { charts }, Block::Table(table)])
}
