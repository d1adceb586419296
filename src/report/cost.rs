//! The costs of a run in tokens and seconds, and the costs that it avoided.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Deserialize;

use super::block::{Bar, Block, Chart, Marks, Section, Table, round};
use super::error::ReportError;
use super::outline::Part;
use super::source::{Source, quoted};
use super::words::{counted, missing, percent, seconds, whole};
use crate::store::EventKind;

/// The most iterations with a bar of their own, and operators with a colour.
const MOST_BARS: u32 = 30;
const MOST_COLORS: usize = 7;

/// The cost of one output, as in the view `cost_by_stage`.
#[derive(Deserialize)]
pub struct Cost {
    /// The output.
    pub node: String,
    /// Its iteration, if it has one.
    pub iteration: Option<u32>,
    operator: String,
    /// Seconds spent in this run.
    pub seconds: f64,
    /// Of these, the seconds in which a model computed; `None` where the journal has none.
    pub device_seconds: Option<f64>,
    sampled_tokens: Option<i64>,
    scored_tokens: Option<i64>,
    trained_tokens: Option<i64>,
    evaluated_tokens: Option<i64>,
    rows: Option<i64>,
    /// Whether it came from the cache.
    pub reused: bool,
    /// The operator that pays. The further outputs of an `evaluate` or `benchmark` node are paid by
    /// it.
    #[serde(skip)]
    pub stage: String,
}

/// The time of an output.
#[derive(Clone, Copy)]
pub struct Time {
    /// Seconds of its node.
    pub seconds: f64,
    /// The part of them in which a model computed.
    pub on_device: f64,
}

impl Cost {
    /// Its time in this run.
    pub fn time(&self) -> Time {
        Time { seconds: self.seconds, on_device: self.device_seconds.unwrap_or(0.0) }
    }

    /// Whether it measures a policy, and is no part of its making.
    pub fn is_measuring(&self) -> bool {
        MEASURING.contains(&self.stage.as_str())
    }

    /// Tokens of the work of its stage: sampled, trained on, or scored. The rewards of an
    /// evaluation are of tokens counted already.
    pub fn tokens(&self) -> i64 {
        let scored = self.scored_tokens.filter(|_| !self.is_measuring());
        self.sampled_tokens.or(self.trained_tokens).or(self.evaluated_tokens).or(scored).unwrap_or_default()
    }
}

/// The cost of every output; none where a table of the user's own has the view's name.
///
/// # Errors
/// A table cannot be read.
pub fn costs(source: &Source) -> Result<Vec<Cost>, ReportError> {
    if !source.has_view("cost_by_stage") {
        return Ok(Vec::new());
    }
    let mut costs: Vec<Cost> = source.rows("SELECT * FROM cost_by_stage ORDER BY iteration NULLS FIRST, node")?;
    for cost in &mut costs {
        let measuring = source.owner(&cost.node).filter(|owner| MEASURING.contains(&owner.operator));
        cost.stage = measuring.map_or_else(|| cost.operator.clone(), |owner| owner.operator.to_string());
    }
    Ok(costs)
}

/// The operators that measure a policy. A loop without them has the same policies.
const MEASURING: [&str; 2] = ["evaluate", "benchmark"];

/// One operator's share.
#[derive(Default)]
struct Stage {
    outputs: i64,
    reused: i64,
    rows: i64,
    tokens: i64,
    seconds: f64,
    device_seconds: Option<f64>,
}

/// The section; `None` before anything is made.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let costs = costs(source)?;
    let mut stages: IndexMap<&str, Stage> = IndexMap::new();
    for cost in &costs {
        let stage = stages.entry(&cost.stage).or_default();
        stage.outputs += 1;
        stage.reused += i64::from(cost.reused);
        stage.rows += cost.rows.unwrap_or_default();
        stage.tokens += cost.tokens();
        stage.seconds += cost.seconds;
        stage.device_seconds = match (stage.device_seconds, cost.device_seconds) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
    }
    if stages.is_empty() {
        return Ok(None);
    }
    stages.sort_by(|_, one, _, other| other.seconds.total_cmp(&one.seconds));
    let total: f64 = stages.values().map(|stage| stage.seconds).sum();
    let columns = ["operator", "#outputs", "#from the cache", "#rows", "#tokens", "#time", "#on the device", "#share"];
    let mut table = Table::new("By operator", &columns);
    for (name, stage) in &stages {
        let tokens = if stage.tokens > 0 { whole(stage.tokens) } else { missing() };
        let share = if total > 0.0 { percent(stage.seconds / total) } else { missing() };
        let counts = [whole(stage.outputs), whole(stage.reused), whole(stage.rows), tokens];
        let on_device = stage.device_seconds.map_or_else(missing, seconds);
        table.rows.push([(*name).to_string()].into_iter().chain(counts).chain([seconds(stage.seconds), on_device, share]).collect());
    }
    let lead = format!("{} in the nodes of this run, over all of its starts.", seconds(total));
    let section = Section::new("cost", "Cost", lead)
        .with(Block::Charts { charts: vec![chart(&costs, &stages.keys().copied().collect::<Vec<_>>())] })
        .with(Block::Table(table))
        .note(
            "Tokens: of generate and evaluate those sampled, of score those with a reward, of what trains those in its batches. \
             On the device: the time in which models computed, without loading, tokenizing and writing.",
        );
    let mut facts = reused(source, &costs);
    facts.extend(carried(source, stages.get("generate"))?);
    Ok(Some(section.with(Block::Facts { facts })))
}

/// Bars of seconds; `stages` have the most expensive one first, and those without a colour of their
/// own are one piece.
fn chart(costs: &[Cost], stages: &[&str]) -> Chart {
    let mut colors: Vec<String> = stages.iter().take(MOST_COLORS).map(|stage| (*stage).to_string()).collect();
    if stages.len() > MOST_COLORS {
        colors.push("others".to_string());
    }
    let mut sums: BTreeMap<(Option<u32>, usize), f64> = BTreeMap::new();
    let left_out = costs.iter().filter_map(|cost| cost.iteration).max().unwrap_or(0).saturating_sub(MOST_BARS);
    for cost in costs.iter().filter(|cost| cost.iteration.is_none_or(|iteration| iteration > left_out)) {
        let color = colors.iter().position(|color| *color == cost.stage).unwrap_or(MOST_COLORS);
        *sums.entry((cost.iteration, color)).or_default() += cost.seconds;
    }
    let bars = sums.into_iter().filter_map(|((iteration, color), value)| {
        let bar = iteration.map_or("once".to_string(), |iteration| iteration.to_string());
        Some(Bar { bar, piece: colors.get(color)?.clone(), value: round(value)? })
    });
    let note = match left_out {
        0 => "nodes that do not wait for each other run side by side, so these seconds add up to more than the clock's".to_string(),
        some => format!("the first {some} iterations are left out"),
    };
    Chart {
        title: "Seconds by iteration".to_string(),
        note,
        x: "seconds".to_string(),
        y: "iteration".to_string(),
        marks: Marks::Bars { bars: bars.collect(), colors },
    }
}

/// Outputs that were not computed: from the cache, or parts of earlier starts.
fn reused(source: &Source, costs: &[Cost]) -> Vec<(String, String, String)> {
    let cached: Vec<&Cost> = costs.iter().filter(|cost| cost.reused).collect();
    let tokens = cached.iter().map(|cost| cost.tokens()).sum();
    let detail = match cached.len() {
        0 => "none were there before".to_string(),
        _ => format!("{} not sampled or trained on again", counted(tokens, "token")),
    };
    let value = format!("{} of {}", whole(cached.len() as i64), whole(costs.len() as i64));
    let mut kept = 0;
    let mut starts = 0;
    for cost in costs {
        let of = || source.events.iter().enumerate().filter(|(_, event)| event.node == cost.node && event.iteration == cost.iteration);
        let begun: Vec<usize> = of().filter(|(_, event)| event.event == EventKind::Started).map(|(index, _)| index).collect();
        if let [_, .., last] = begun.as_slice() {
            starts += begun.len() - 1;
            kept += of().filter(|(index, event)| index < last && event.event == EventKind::PartCommitted).count();
        }
    }
    let over = format!("kept over {} in nodes that were begun again", counted(starts as i64, "start"));
    vec![("Outputs from the cache".to_string(), value, detail), ("Parts not made again".to_string(), whole(kept as i64), over)]
}

/// The responses that were carried over in the pools, and an estimate of their sampling costs at
/// this run's own pace.
fn carried(source: &Source, generate: Option<&Stage>) -> Result<Vec<(String, String, String)>, ReportError> {
    #[derive(Deserialize)]
    struct Carried {
        responses: i64,
        tokens: Option<i64>,
    }
    let mut facts = Vec::new();
    for pool in source.with_operator("merge").filter(|pool| pool.part == Part::Loop && source.has(&pool.name)) {
        let query = format!(
            "SELECT count(*) AS responses, sum(token_count) AS tokens FROM {} WHERE sampled_iteration < iteration",
            quoted(&pool.name)
        );
        for found in source.rows::<Carried>(&query)? {
            let tokens = found.tokens.unwrap_or_default();
            // If a stage came partly from the cache, its seconds do not cover all of its tokens.
            let pace = generate.filter(|stage| stage.seconds > 0.0 && stage.reused == 0).map(|stage| stage.tokens as f64 / stage.seconds);
            let time = pace.map_or(String::new(), |pace| format!(", about {} at this run's pace", seconds(tokens as f64 / pace)));
            let value = format!("{} not sampled", counted(tokens, "token"));
            let detail = format!("{} carried over in {}{time}", counted(found.responses, "response"), pool.name);
            facts.push(("Saved by selection".to_string(), value, detail));
        }
    }
    Ok(facts)
}
