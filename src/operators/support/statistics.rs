//! What the servers of a node did, for the journal and for errors.
//!
//! Knows neither requests nor rows.

use super::{Context, OperatorError};
use crate::remote::{Absence, Fleet, Statistics};
use crate::store::{Event, EventKind};

/// Records what each server did: one line a server, none for a server that was never asked.
///
/// # Errors
/// The journal cannot be written.
pub fn record(context: &Context, fleet: &Fleet) -> Result<(), OperatorError> {
    for Statistics { url, answers, failures, rests, seconds } in fleet.statistics() {
        if answers + failures + rests == 0 {
            continue;
        }
        let mut event = Event::new(EventKind::ServerAsked, &context.task.name, context.task.iteration);
        event.message = Some(url);
        let numbers = [("answers", answers as f64), ("failures", failures as f64), ("rests", rests as f64), ("seconds", seconds)];
        event.detail = numbers.into_iter().map(|(name, number)| (name.to_string(), number)).collect();
        context.run.record(event)?;
    }
    Ok(())
}

/// The error when no server of several is left.
pub fn nobody(fleet: &Fleet, absences: &[Absence]) -> OperatorError {
    let urls = fleet.statistics().into_iter().map(|statistics| statistics.url);
    let reasons: Vec<String> = urls
        .zip(absences)
        .map(
            |(url, absence)| {
                if absence.problem.starts_with(&url) { absence.problem.clone() } else { format!("{url}: {}", absence.problem) }
            },
        )
        .collect();
    OperatorError::Failed(format!(
        "none of the {} servers can be asked: {}; the same command goes on from here",
        absences.len(),
        reasons.join("; ")
    ))
}
