//! Over-optimisation, told from the evaluations of a run: the reward rises while something that it
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
pub use signals::{Iteration, Prompt};

use crate::sql::Session;
use crate::store::StoreError;

/// The alarms of an `evaluate` node so far, in the order of the iterations. `policy` is the node of
/// the evaluated policy.
///
/// # Errors
/// A table cannot be read.
pub fn of_evaluation(session: &Session, evaluation: &str, policy: &str) -> Result<Vec<Alarm>, StoreError> {
    Ok(alarms(&signals::read(session, evaluation, policy)?))
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
