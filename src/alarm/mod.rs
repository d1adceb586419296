//! Over-optimization, told from the evaluations of a run: the reward rises while something that it
//! does not measure runs away.
//!
//! ```text
//! evaluation, its baseline's responses, training ─▶ signals ─▶ rules ─▶ alarms, with what to do
//! ```
//! The same alarms are told during the run, in its summary and in its report. Knows no node by name
//! and nothing of how a run is executed.

mod rules;
mod signals;

pub use rules::{Alarm, Sign, alarms};
pub use signals::{Change, Iteration, Prompt};

use crate::pipeline::graph::Graph;
use crate::pipeline::spec::operator::Operator;
use crate::sql::Session;
use crate::store::StoreError;

/// The alarms of an `evaluate` node so far, in the order of the iterations. `policy` is the node of
/// the evaluated policy, `benchmarks` are the `benchmark` nodes of the same policy.
///
/// # Errors
/// A table cannot be read.
pub fn of_evaluation(session: &Session, evaluation: &str, policy: &str, benchmarks: &[&str]) -> Result<Vec<Alarm>, StoreError> {
    Ok(alarms(&signals::read(session, evaluation, policy, benchmarks)?))
}

/// The alarms of an `evaluate` node of a graph.
///
/// # Errors
/// A table cannot be read.
pub fn of_node(session: &Session, graph: &Graph, evaluation: &str) -> Result<Vec<Alarm>, StoreError> {
    let policy = graph.tasks.iter().find_map(|task| match &task.operator {
        Operator::Evaluate(settings) if task.name == evaluation => Some(plain(&settings.policy.value)),
        _ => None,
    });
    let policy = policy.unwrap_or_default();
    let mut benchmarks: Vec<&str> = Vec::new();
    for task in &graph.tasks {
        if let Operator::Benchmark(settings) = &task.operator
            && plain(&settings.policy.value) == policy
            && !benchmarks.contains(&task.name.as_str())
        {
            benchmarks.push(&task.name);
        }
    }
    of_evaluation(session, evaluation, policy, &benchmarks)
}

/// A name without the mark of the last iteration.
fn plain(name: &str) -> &str {
    name.strip_suffix("[t-1]").unwrap_or(name)
}

/// The last alarm of each sign, in the order of the signs: what a reader of the whole run needs.
pub fn latest(alarms: Vec<Alarm>) -> Vec<Alarm> {
    let mut latest: Vec<Alarm> = Vec::new();
    for alarm in alarms {
        latest.retain(|other| other.sign != alarm.sign);
        latest.push(alarm);
    }
    latest.sort_by_key(|alarm| alarm.sign);
    latest
}
