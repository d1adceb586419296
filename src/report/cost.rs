//! What a run cost in tokens and seconds, and what it did not have to pay again.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Deserialize;

use super::ReportError;
use super::block::{Bar, Block, Chart, Marks, Section, Table, round};
use super::source::{Part, Source, quoted};
use super::words::{counted, missing, percent, seconds, whole};
use crate::store::{EventKind, Manifest, Place};
use crate::tables::TableKind;

/// One operator's share.
#[derive(Default)]
struct Stage {
    outputs: i64,
    from_cache: i64,
    rows: u64,
    tokens: i64,
    seconds: f64,
}

/// The section; `None` before anything is made.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let mut stages: IndexMap<String, Stage> = IndexMap::new();
    let mut bars: BTreeMap<u32, IndexMap<String, f64>> = BTreeMap::new();
    for (place, manifest) in source.tasks() {
        let spent = source.seconds(place);
        let stage = stages.entry(source.stage(place, manifest)).or_default();
        stage.outputs += 1;
        stage.from_cache += i64::from(manifest.complete && !source.made(place));
        stage.rows += manifest.rows();
        stage.tokens += tokens(source, place, manifest)?;
        stage.seconds += spent.unwrap_or_default();
        *bars.entry(place.iteration.unwrap_or(0)).or_default().entry(source.stage(place, manifest)).or_default() += spent.unwrap_or_default();
    }
    if stages.is_empty() {
        return Ok(None);
    }
    stages.sort_by(|_, one, _, other| other.seconds.total_cmp(&one.seconds));
    let total: f64 = stages.values().map(|stage| stage.seconds).sum();
    let colors: Vec<String> = stages.keys().cloned().collect();
    let mut pieces = Vec::new();
    for (iteration, of) in &bars {
        for color in colors.iter().filter(|color| of.contains_key(*color)) {
            let value = of.get(color).copied().and_then(round).unwrap_or_default();
            let bar = if *iteration == 0 { "once".to_string() } else { iteration.to_string() };
            pieces.push(Bar { bar, piece: color.clone(), value });
        }
    }
    let chart = Chart {
        title: "Seconds by iteration".to_string(),
        note: "nodes that do not wait for each other run side by side, so their seconds add up to more than the clock's".to_string(),
        x: "seconds".to_string(),
        y: "iteration".to_string(),
        marks: Marks::Bars { bars: pieces, colors },
    };
    let mut table = Table::new("By operator", &["operator", "#outputs", "#from the cache", "#rows", "#tokens", "#time", "#share"]);
    for (name, stage) in &stages {
        let tokens = if stage.tokens > 0 { whole(stage.tokens) } else { missing() };
        let (rows, share) = (whole(stage.rows as i64), if total > 0.0 { percent(stage.seconds / total) } else { missing() });
        table.rows.push(vec![name.clone(), whole(stage.outputs), whole(stage.from_cache), rows, tokens, seconds(stage.seconds), share]);
    }
    let lead = format!("{} in the nodes of this run, over all of its starts.", seconds(total));
    let section = Section::new("cost", "Cost", lead)
        .with(Block::Charts { charts: vec![chart] })
        .with(Block::Table(table))
        .note("Tokens: of generate and evaluate those sampled, of what trains those in its batches.");
    Ok(Some(section.with(Block::Facts { facts: saved(source, &stages)? })))
}

/// Tokens that an output took: sampled ones, or those of training.
///
/// # Errors
/// The training table cannot be read.
pub fn tokens(source: &Source, place: &Place, manifest: &Manifest) -> Result<i64, ReportError> {
    #[derive(Deserialize)]
    struct Sum {
        tokens: Option<i64>,
    }
    let training = Place::table(format!("{}_training", place.name), place.iteration);
    let trains = source.outputs.iter().any(|(other, manifest)| *other == training && manifest.table == Some(TableKind::Training) && manifest.rows() > 0);
    if !trains {
        return Ok(manifest.counts.get("tokens").copied().unwrap_or_default());
    }
    let at = i64::from(place.iteration.unwrap_or(0));
    let query = format!("SELECT sum(tokens) AS tokens FROM {} WHERE {} = {at}", quoted(&training.name), source.iteration_of(&training.name));
    Ok(source.rows::<Sum>(&query)?.first().and_then(|sum| sum.tokens).unwrap_or_default())
}

/// What was not computed: outputs of the cache, parts of earlier starts, prompts that were not regenerated.
fn saved(source: &Source, stages: &IndexMap<String, Stage>) -> Result<Vec<(String, String, String)>, ReportError> {
    let mut facts = Vec::new();
    let cached: Vec<_> = source.tasks().filter(|(place, manifest)| manifest.complete && !source.made(place)).collect();
    let mut sampled = 0;
    for (place, manifest) in &cached {
        sampled += tokens(source, place, manifest)?;
    }
    let outputs = stages.values().map(|stage| stage.outputs).sum::<i64>();
    let detail = if cached.is_empty() { "none were there before".to_string() } else { format!("{} not sampled or trained on again", counted(sampled, "token")) };
    facts.push(("Outputs from the cache".to_string(), format!("{} of {}", whole(cached.len() as i64), whole(outputs)), detail));

    let (mut kept, mut starts) = (0, 0);
    for (place, _) in source.tasks() {
        let of = || source.events.iter().enumerate().filter(|(_, event)| event.node == place.name && event.iteration == place.iteration);
        let begun: Vec<usize> = of().filter(|(_, event)| event.event == EventKind::Started).map(|(index, _)| index).collect();
        if let [_, .., last] = begun.as_slice() {
            starts += begun.len() - 1;
            kept += of().filter(|(index, event)| index < last && event.event == EventKind::PartCommitted).count();
        }
    }
    let detail = format!("kept over {} in nodes that were begun again", counted(starts as i64, "start"));
    facts.push(("Parts not made again".to_string(), whole(kept as i64), detail));
    facts.extend(carried(source, stages.get("generate"))?);
    Ok(facts)
}

/// The responses that were carried over in the pools, and what sampling them would have cost at this run's own pace.
fn carried(source: &Source, generate: Option<&Stage>) -> Result<Vec<(String, String, String)>, ReportError> {
    #[derive(Deserialize)]
    struct Carried {
        responses: i64,
        tokens: Option<i64>,
    }
    let mut facts = Vec::new();
    for pool in source.with_operator("merge").filter(|pool| pool.part == Part::Loop && source.has(&pool.name)) {
        let query = format!("SELECT count(*) AS responses, sum(token_count) AS tokens FROM {} WHERE born < iteration", quoted(&pool.name));
        for found in source.rows::<Carried>(&query)? {
            let tokens = found.tokens.unwrap_or_default();
            let pace = generate.filter(|stage| stage.seconds > 0.0 && stage.from_cache == 0).map(|stage| stage.tokens as f64 / stage.seconds);
            let time = pace.map_or(String::new(), |pace| format!(", about {} at this run's pace", seconds(tokens as f64 / pace)));
            let value = format!("{} not sampled again", counted(tokens, "token"));
            let detail = format!("{} carried over in {}{time}", counted(found.responses, "response"), pool.name);
            facts.push(("Regeneration saved".to_string(), value, detail));
        }
    }
    Ok(facts)
}
