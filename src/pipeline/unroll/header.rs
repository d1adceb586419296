//! The keys in front of the nodes: the run's name, iterations, date, and variables of chat
//! templates. Knows no node.

use chrono::NaiveDate;
use serde_json::{Value, json};

use crate::model::GIVEN_VARIABLES;
use crate::pipeline::error::Diagnostic;
use crate::pipeline::position::At;
use crate::pipeline::spec::Spec;
use crate::pipeline::spec::address::check_host_and_port;

/// The most iterations; a run of more is a mistake.
const MOST_ITERATIONS: u32 = 1_000;

/// N of `1..N`; 0 without `iterate`.
pub(super) fn iterations(spec: &Spec) -> Result<u32, Diagnostic> {
    let Some(iterate) = &spec.iterate else { return Ok(0) };
    match iterate.t.value.strip_prefix("1..").map(str::parse::<u32>) {
        Some(Ok(last)) if (1..=MOST_ITERATIONS).contains(&last) => Ok(last),
        _ => {
            let found = &iterate.t.value;
            Err(Diagnostic::at(
                iterate.t.span,
                format!("expected the iterations as 1..N with N from 1 to {MOST_ITERATIONS}, found \"{found}\""),
            ))
        }
    }
}

/// The date, if given: a day of the calendar.
pub(super) fn date(spec: &Spec) -> Result<Option<NaiveDate>, Diagnostic> {
    let Some(At { value, span }) = &spec.date else { return Ok(None) };
    // The length excludes longer years and days without their zero: a date has one spelling.
    match value.parse::<NaiveDate>() {
        Ok(date) if value.len() == 10 => Ok(Some(date)),
        _ => Err(Diagnostic::at(*span, format!("expected a date such as 2026-11-23, found \"{value}\""))),
    }
}

/// The scheduler of the cluster, if given.
pub(super) fn cluster(spec: &Spec) -> Result<Option<String>, Diagnostic> {
    let Some(At { value, span }) = &spec.cluster else { return Ok(None) };
    check_host_and_port(value).map_err(|problem| Diagnostic::at(*span, problem))?;
    Ok(Some(value.clone()))
}

/// The variables for chat templates, if given.
pub(super) fn template_variables(spec: &Spec) -> Result<Option<Value>, Diagnostic> {
    let Some(At { value, span }) = &spec.chat_template_kwargs else { return Ok(None) };
    match value.keys().find(|name| GIVEN_VARIABLES.contains(&name.as_str())) {
        Some(name) => {
            Err(Diagnostic::at(*span, format!("expected variables of chat templates, found \"{name}\", which every template is given")))
        }
        None => Ok(Some(json!(value))),
    }
}

/// Checks the name of the run. It is the name of a folder and must not lead out of its parent.
pub(super) fn run_name(name: &At<String>) -> Result<(), Diagnostic> {
    let text = &name.value;
    let valid = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 100
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c));
    if valid {
        return Ok(());
    }
    let expected = "expected a name of at most 100 letters, digits, \"-\", \"_\" and \".\" that begins with a letter or digit";
    Err(Diagnostic::at(name.span, format!("{expected}, found \"{text}\"")))
}
