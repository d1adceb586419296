//! Signs of over-optimization, marked where the evaluations are shown.

use super::block::Block;
use super::error::ReportError;
use super::outline::Node;
use super::source::Source;
use crate::alarm;

/// The latest alarms of an `evaluate` node.
///
/// # Errors
/// A table cannot be read.
pub fn blocks(source: &Source, evaluation: &str) -> Result<Vec<Block>, ReportError> {
    let reads = source.node(evaluation).map(|node| node.reads.as_slice()).unwrap_or_default();
    let policy = reads.iter().find(|read| read.slot == "policy").map_or("", |read| read.name.as_str());
    let reads_policy = |node: &&Node| node.reads.iter().any(|read| read.slot == "policy" && read.name == policy);
    let benchmarks: Vec<&str> = source.with_operator("benchmark").filter(reads_policy).map(|node| node.name.as_str()).collect();
    let alarms = alarm::latest(alarm::of_evaluation(source.session(), evaluation, policy, &benchmarks)?);
    let block = |alarm: alarm::Alarm| {
        let since = if alarm.since < alarm.iteration { format!(", since iteration {}", alarm.since) } else { String::new() };
        Block::Alarm { place: format!("{}{since}", alarm.place(evaluation)), text: alarm.text, advice: alarm.sign.advice().to_string() }
    };
    Ok(alarms.into_iter().map(block).collect())
}
