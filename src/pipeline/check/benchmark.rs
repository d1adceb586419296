//! Checks of a `benchmark` without its tables: which keys go together, templates, expressions.

use fancy_regex::Regex;

use crate::did_you_mean::nearest;
use crate::model::RowTemplate;
use crate::pipeline::error::Diagnostic;
use crate::pipeline::position::{At, Name, Span};
use crate::pipeline::spec::benchmark::Benchmark;
use crate::pipeline::spec::benchmark::metric::Metric;
use crate::pipeline::spec::benchmark::task::{BenchmarkTask, Choices, Target};

/// Checks a benchmark; `span` is that of its node.
///
/// # Errors
/// The first fault, with its place.
pub(super) fn check_benchmark(benchmark: &Benchmark, span: Span) -> Result<(), Diagnostic> {
    if benchmark.tasks.is_empty() {
        return Err(Diagnostic::at(span, "expected at least one task in `tasks`, found none"));
    }
    for (name, task) in &benchmark.tasks {
        check_name("task", name)?;
        check_kind(name, task)?;
        check_templates(task)?;
        for (name, metric) in &task.metrics {
            check_name("metric", name)?;
            check_metric(name, metric, task)?;
        }
        check_primary(task)?;
    }
    Ok(())
}

/// Names are parts of tables' names and of curves' names.
fn check_name(what: &str, name: &Name) -> Result<(), Diagnostic> {
    let text = &name.value;
    let valid = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if valid {
        return Ok(());
    }
    let expected = "of at most 64 lower-case letters, digits and \"_\" that begins with a letter";
    Err(Diagnostic::at(name.span, format!("expected a name of a {what} {expected}, found \"{text}\"")))
}

/// Whether a task is multiple choice or generated, and not half of both.
fn check_kind(name: &Name, task: &BenchmarkTask) -> Result<(), Diagnostic> {
    let problem = |span: Span, problem: String| Err(Diagnostic::at(span, format!("task {}: {problem}", name.value)));
    match (&task.choices, &task.answer, &task.labels) {
        (_, Some(_), Some(labels)) => problem(labels.span, "expected `answer` or `labels`, found both".to_string()),
        (None, _, Some(labels)) => problem(labels.span, "`labels` belong to choices, and there are no `choices`".to_string()),
        (Some(choices), None, None) => {
            problem(choices.span, "expected `answer` or `labels` to know the right one of the choices, found neither".to_string())
        }
        (Some(choices), ..) if task.generate.is_some() || !task.metrics.is_empty() => {
            let key = if task.generate.is_some() { "generate" } else { "metrics" };
            problem(
                choices.span,
                format!("`{key}` is for generated answers, and with `choices` nothing is generated; leave out one of them"),
            )
        }
        (None, None, None) if task.metrics.is_empty() => {
            let expected = "expected `choices`, an `answer` to compare a generated text with, or `metrics` with sql or reward";
            problem(name.span, format!("{expected}, found none of them"))
        }
        (None, Some(At { value: Target::Index(index), span }), None) => {
            problem(*span, format!("expected a column or a template with the right text, found {index}, the number of a choice"))
        }
        _ => Ok(()),
    }
}

fn check_templates(task: &BenchmarkTask) -> Result<(), Diagnostic> {
    let check = |text: &str, span: Span| {
        if !RowTemplate::is_template(text) {
            return Ok(());
        }
        RowTemplate::new(text).map(drop).map_err(|error| Diagnostic::at(span, error.to_string()))
    };
    for text in [Some(&task.question), task.description.as_ref(), task.labels.as_ref()].into_iter().flatten() {
        check(&text.value, text.span)?;
    }
    if let Some(At { value: Target::Text(text), span }) = &task.answer {
        check(text, *span)?;
    }
    match &task.choices {
        Some(At { value: Choices::Text(text), span }) => check(text, *span),
        Some(At { value: Choices::List(texts), span }) => texts.iter().try_for_each(|text| check(text, *span)),
        None => Ok(()),
    }
}

fn check_metric(name: &Name, metric: &Metric, task: &BenchmarkTask) -> Result<(), Diagnostic> {
    let problem = |problem: String| Err(Diagnostic::at(name.span, format!("metric {}: {problem}", name.value)));
    match metric.kinds().as_slice() {
        [] => return problem("expected one of exact_match, sql and reward, found none".to_string()),
        [_] => {}
        several => return problem(format!("expected one of exact_match, sql and reward, found {}", several.join(" and "))),
    }
    if metric.exact_match.is_some() && task.answer.is_none() {
        return problem("exact_match compares with the right answer; name its column with `answer:`".to_string());
    }
    if metric.reward.is_some() && metric.extract.is_some() {
        return problem("a reward is given the whole answer; leave out `extract`".to_string());
    }
    let ignored = metric.exact_match.iter().flat_map(|exact| &exact.ignore);
    for regex in metric.extract.iter().map(|extract| &extract.regex).chain(ignored) {
        if let Err(error) = Regex::new(regex) {
            return problem(format!("expected a regular expression, found {regex:?}: {error}"));
        }
    }
    Ok(())
}

fn check_primary(task: &BenchmarkTask) -> Result<(), Diagnostic> {
    let Some(primary) = &task.primary else { return Ok(()) };
    let names = task.metric_names();
    // The names of a reward's components are known to the reward alone.
    let component = |(metric, _): (&str, &Name)| primary.value.strip_prefix(metric).is_some_and(|rest| rest.starts_with('.'));
    if names.contains(&primary.value) || task.reward_metrics().into_iter().any(component) {
        return Ok(());
    }
    let near =
        nearest(&primary.value, names.iter().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
    let found = &primary.value;
    Err(Diagnostic::at(primary.span, format!("primary: expected one of {}, found \"{found}\"{near}", names.join(", "))))
}
