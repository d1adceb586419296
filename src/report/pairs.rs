//! Pairs: the distribution of their gaps and weights, and the texts of those with the largest and
//! the smallest gap.

use std::collections::HashMap;

use serde::Deserialize;

use super::block::{Block, Chart, PairText, Section, Table, Text};
use super::error::ReportError;
use super::prompts::Asking;
use super::rewards::distribution;
use super::source::{Source, quoted};
use super::words::{maybe, number, whole};
use crate::import::Preferences;
use crate::model::PromptContent;
use crate::store::OutputKey;
use crate::tables::TableKind;

/// How many pairs are shown at each end.
const SHOWN: usize = 5;
/// Characters of a text: those shown at once, and those in the file at all.
const SHOWN_CHARACTERS: usize = 400;
const MOST_CHARACTERS: usize = 8_000;

#[derive(Deserialize)]
struct Spread {
    iteration: i64,
    count: i64,
    mean_gap: Option<f64>,
    smallest: Option<f64>,
    largest: Option<f64>,
    mean_weight: Option<f64>,
    least: Option<f64>,
    most: Option<f64>,
}

#[derive(Deserialize)]
struct Pair {
    prompt_id: String,
    reward_gap: f64,
    weight: f64,
    #[serde(default)]
    chosen: String,
    #[serde(default)]
    rejected: String,
}

/// The section; `None` before there are pairs.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let mut section =
        Section::new("pairs", "Pairs", "What the policy is trained on: of each prompt the response to prefer and the one to avoid.");
    for table in source.tables(TableKind::Pairs) {
        // The further output of a training node has the pairs of a `pair` node again, with the
        // reference's logprobs.
        let again = source.owner(table).is_some_and(|owner| owner.name != table && source.upstream(&owner.name, "pair").is_some());
        if !again {
            blocks(source, table, &mut section.blocks)?;
        }
    }
    Ok((!section.blocks.is_empty()).then_some(section))
}

fn blocks(source: &Source, table: &str, blocks: &mut Vec<Block>) -> Result<(), ReportError> {
    let iteration = source.iteration_of(table);
    let spreads: Vec<Spread> = source.rows(&format!(
        "SELECT {iteration} AS iteration, count(*) AS \"count\", avg(reward_gap) AS mean_gap, min(reward_gap) AS smallest,
       max(reward_gap) AS largest, avg(weight) AS mean_weight, min(weight) AS least, max(weight) AS most
FROM {} GROUP BY 1 ORDER BY 1",
        quoted(table)
    ))?;
    let charts: [Chart; 2] = [
        distribution(source, table, "reward_gap", &format!("Reward gaps: {table}"))?,
        distribution(source, table, "weight", &format!("Weights of the loss: {table}"))?,
    ];
    blocks.push(Block::Charts { charts: charts.into() });
    let columns =
        ["#iteration", "#pairs", "#mean gap", "#smallest", "#largest", "#mean weight", "#least", "#most", "#prompts without a gap"];
    let mut rows = Table::new(&format!("By iteration: {table}"), &columns);
    for spread in &spreads {
        let mut row = vec![spread.iteration.to_string(), whole(spread.count)];
        let values = [spread.mean_gap, spread.smallest, spread.largest, spread.mean_weight, spread.least, spread.most];
        row.extend(values.map(maybe));
        row.push(without_gap(source, table, spread.iteration));
        rows.rows.push(row);
    }
    blocks.push(Block::Table(rows));
    let Some(last) = spreads.last() else { return Ok(()) };
    let ends = if last.count <= 2 * SHOWN as i64 {
        vec![("reward_gap DESC", "all")]
    } else {
        vec![("reward_gap DESC", "the largest"), ("reward_gap", "the smallest")]
    };
    for (order, which) in ends {
        let of = if last.iteration > 0 { format!(" of iteration {}", last.iteration) } else { String::new() };
        let limit = if which == "all" { 2 * SHOWN } else { SHOWN };
        if let Some(pairs) = texts(source, table, last.iteration, order, limit)? {
            blocks.push(Block::Pairs { title: format!("{table}{of}: {which} gaps"), pairs });
        }
    }
    Ok(())
}

/// The node's counts of prompts without a pair.
fn without_gap(source: &Source, table: &str, iteration: i64) -> String {
    let place = OutputKey::table(table, u32::try_from(iteration).ok().filter(|iteration| *iteration > 0));
    let counts = source.outputs.iter().find(|(other, _)| *other == place).map(|(_, manifest)| &manifest.counts);
    maybe(counts.and_then(|counts| counts.get("ties")).map(|count| *count as f64))
}

/// Pairs with their texts: the view `largest_gaps` has those of sampled pairs. `None` where the
/// texts cannot be found.
fn texts(source: &Source, table: &str, iteration: i64, order: &str, limit: usize) -> Result<Option<Vec<PairText>>, ReportError> {
    if !source.has_view("largest_gaps") {
        return preferences(source, table, iteration, order, limit);
    }
    let Some(responses) = source.upstream(table, "generate") else {
        return preferences(source, table, iteration, order, limit);
    };
    let Some(asking) = Asking::of(source, &responses.name)? else { return Ok(None) };
    let pairs: Vec<Pair> = source.rows(&format!(
        "SELECT prompt_id, reward_gap, weight, chosen, rejected FROM largest_gaps
WHERE node = '{}' AND coalesce(iteration, 0) = {iteration} ORDER BY {order}, prompt_id LIMIT {limit}",
        table.replace('\'', "''"),
    ))?;
    let asked = asking.texts();
    Ok(Some(pairs.into_iter().map(|pair| readable(asked.get(pair.prompt_id.as_str()).copied(), pair)).collect()))
}

/// Pairs from the user's preferences.
fn preferences(source: &Source, table: &str, iteration: i64, order: &str, limit: usize) -> Result<Option<Vec<PairText>>, ReportError> {
    let reads = source.owner(table).into_iter().flat_map(|owner| &owner.reads);
    let Some(brought) = reads.filter(|read| read.slot == "pairs").map(|read| &read.name).next() else { return Ok(None) };
    let found = source.outputs.iter().find(|(place, manifest)| {
        place.name == *brought && manifest.complete && place.iteration.is_none_or(|of| i64::from(of) == iteration)
    });
    let Some((place, _)) = found else { return Ok(None) };
    let all = Preferences::from_batches(brought, source.run.read_table(place, None)?)?;
    let all: HashMap<&str, _> = all.iter().map(|preference| (preference.id.as_str(), preference)).collect();
    let pairs: Vec<Pair> = source.rows(&format!(
        "SELECT prompt_id, reward_gap, weight FROM {} WHERE {} = {iteration} ORDER BY {order}, prompt_id LIMIT {limit}",
        quoted(table),
        source.iteration_of(table)
    ))?;
    let with_texts = pairs.into_iter().filter_map(|pair| {
        let preference = all.get(pair.prompt_id.as_str())?;
        let chosen = preference.chosen.clone();
        let rejected = preference.rejected.clone();
        Some(readable(Some(&preference.prompt), Pair { chosen, rejected, ..pair }))
    });
    Ok(Some(with_texts.collect()))
}

fn readable(asked: Option<&PromptContent>, pair: Pair) -> PairText {
    let asked = match asked {
        Some(PromptContent::Text(text)) => vec![(String::new(), Text::of(text))],
        Some(PromptContent::Messages(conversation)) => {
            conversation.messages.iter().map(|message| (message.role.clone(), Text::of(&message.content))).collect()
        }
        None => Vec::new(),
    };
    PairText {
        asked,
        chosen: Text::of(&pair.chosen),
        rejected: Text::of(&pair.rejected),
        gap: number(pair.reward_gap),
        weight: number(pair.weight),
        prompt_id: pair.prompt_id,
    }
}

impl Text {
    /// A text as it is shown: its beginning, the rest folded, and of a very long one not even that.
    fn of(text: &str) -> Self {
        let end = |most: usize| text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
        let shown = end(SHOWN_CHARACTERS);
        let all = end(MOST_CHARACTERS);
        let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().to_string();
        let left_out = text.get(all..).unwrap_or_default().chars().count();
        Self { shown: part(0..shown), folded: part(shown..all), left_out }
    }
}
