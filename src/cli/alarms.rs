//! The warnings in the summary of a run: responses cut off by the length limit, and signs of
//! over-optimization.
//!
//! Knows the form of the lines, not the rules behind them.

use serde_json::{Value, json};

use super::error::CliError;
use crate::alarm::{self, Alarm};
use crate::pipeline::graph::{Graph, Task};
use crate::pipeline::spec::operator::Operator;
use crate::sql::Session;
use crate::store::Run;

/// The most iterations with a share of their own.
const MOST_SHARES: usize = 10;

/// The latest alarms of all evaluations, each with its node.
pub(super) fn latest(graph: &Graph, session: &Session) -> Result<Vec<(String, Alarm)>, CliError> {
    let mut found = Vec::new();
    let mut last: Option<&str> = None;
    for task in &graph.tasks {
        if !matches!(task.operator, Operator::Evaluate(_)) {
            continue;
        }
        if last != Some(&task.name) && !found.iter().any(|(node, _)| *node == task.name) {
            let alarms = alarm::latest(alarm::of_node(session, graph, &task.name)?);
            found.extend(alarms.into_iter().map(|alarm| (task.name.clone(), alarm)));
        }
        last = Some(&task.name);
    }
    Ok(found)
}

/// The alarms as lines.
pub(super) fn lines(alarms: &[(String, Alarm)]) -> Vec<String> {
    let line = |(node, alarm): &(String, Alarm)| format!("alarm: {}: {}", alarm.place(node), alarm.line());
    alarms.iter().map(line).collect()
}

/// The alarms for machines.
pub(super) fn to_json(alarms: &[(String, Alarm)]) -> Vec<Value> {
    let one = |(node, alarm): &(String, Alarm)| {
        json!({ "node": node, "iteration": alarm.iteration, "since": alarm.since, "sign": alarm.sign.name(), "text": alarm.text,
            "advice": alarm.sign.advice() })
    };
    alarms.iter().map(one).collect()
}

/// The shares of truncated responses of every node that samples some to train on; nothing for
/// nodes without any.
pub(super) fn truncated(run: &Run, graph: &Graph, is_training: impl Fn(&Task) -> bool) -> Result<Vec<String>, CliError> {
    let mut nodes: Vec<(&str, Vec<String>)> = Vec::new();
    for task in graph.tasks.iter().filter(|task| matches!(task.operator, Operator::Generate(_)) && is_training(task)) {
        let Some(manifest) = run.manifest(&task.output_key())? else { continue };
        let count = |name: &str| manifest.counts.get(name).copied().unwrap_or(0);
        let (truncated, responses) = (count("truncated"), count("responses"));
        if truncated == 0 {
            continue;
        }
        let of = task.iteration.map_or(String::new(), |iteration| format!(" in iteration {iteration}"));
        let share = format!("{truncated} of {responses} ({:.1} %){of}", 100.0 * truncated as f64 / responses.max(1) as f64);
        match nodes.iter_mut().find(|(name, _)| *name == task.name) {
            Some((_, shares)) => shares.push(share),
            None => nodes.push((&task.name, vec![share])),
        }
    }
    let line = |(name, shares): (&str, Vec<String>)| {
        let skipped = shares.len().saturating_sub(MOST_SHARES);
        let more = if skipped > 0 { format!("{skipped} iterations before, ") } else { String::new() };
        format!("cut off by the length limit: {more}{} of {name}", shares.into_iter().skip(skipped).collect::<Vec<_>>().join(", "))
    };
    Ok(nodes.into_iter().map(line).collect())
}
