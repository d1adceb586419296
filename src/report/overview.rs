//! The top of the page: the state of the run, and its few most telling numbers.

use super::alarms;
use super::benchmark;
use super::block::{Block, Section};
use super::cost::costs;
use super::error::ReportError;
use super::evaluation::evaluated;
use super::judge;
use super::source::Source;
use super::words::{interval, number, seconds, signed, whole};
use crate::store::EventKind;

/// The most missing outputs that are named.
const MOST_NAMED: usize = 12;

/// The state of a run so far.
pub fn state(source: &Source) -> &'static str {
    if source.running {
        "running"
    } else if source.missing().is_empty() {
        "finished"
    } else if failures(source).is_empty() {
        "stopped"
    } else {
        "failed"
    }
}

/// The section.
///
/// # Errors
/// A table cannot be read.
pub fn section(source: &Source) -> Result<Section, ReportError> {
    let costs = costs(source)?;
    let mut facts = Vec::new();
    for node in source.with_operator("evaluate") {
        let all = evaluated(source, &node.name)?;
        let Some(last) = all.last() else { continue };
        let (Some(reward), Some(baseline)) = (last.reward, last.baseline()) else { continue };
        let detail = format!("baseline {}, {}", number(baseline.mean), signed(reward.mean - baseline.mean));
        facts.push((format!("Held-out reward ({})", node.name), interval(last.reward), detail));
        let of = if last.iteration > 0 {
            format!("after iteration {}; 50 is no difference", last.iteration)
        } else {
            "50 is no difference".to_string()
        };
        facts.push((format!("Win score ({})", node.name), interval(last.win_score), of));
    }
    facts.extend(judge::facts(source)?);
    facts.extend(benchmark::facts(source)?);
    let sampled = |stage: &str| costs.iter().filter(|cost| cost.stage == stage).map(|cost| cost.tokens()).sum::<i64>();
    let time: f64 = costs.iter().map(|cost| cost.seconds).sum();
    facts.push(("Tokens sampled".to_string(), whole(sampled("generate")), format!("and {} to evaluate", whole(sampled("evaluate")))));
    let reused = costs.iter().filter(|cost| cost.reused).count() as i64;
    facts.push((
        "Time in nodes".to_string(),
        seconds(time),
        format!("{} of {} outputs from the cache", whole(reused), whole(costs.len() as i64)),
    ));

    let mut section = Section::new("overview", "Overview", "").with(Block::Facts { facts });
    for node in source.with_operator("evaluate") {
        section.blocks.extend(alarms::blocks(source, &node.name)?);
    }
    let missing = source.missing();
    if !missing.is_empty() {
        let named = missing.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = match missing.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        section = section.note(format!("Not there yet: {named}{more}. Only what is committed is shown."));
    }
    for message in failures(source) {
        section = section.note(message);
    }
    Ok(section)
}

/// The last error of each node without a later success.
fn failures(source: &Source) -> Vec<String> {
    let mut failures = Vec::new();
    for (index, event) in source.events.iter().enumerate().filter(|(_, event)| event.event == EventKind::NodeFailed) {
        let later = source.events.iter().skip(index + 1).any(|other| {
            other.node == event.node
                && other.iteration == event.iteration
                && matches!(other.event, EventKind::NodeDone | EventKind::NodeFailed | EventKind::Started)
        });
        if !later {
            let node = event.iteration.map_or(event.node.clone(), |iteration| format!("{}[{iteration}]", event.node));
            failures.push(format!("{node} failed: {}", event.message.as_deref().unwrap_or("without a message")));
        }
    }
    failures
}
