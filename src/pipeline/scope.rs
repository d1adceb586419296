//! The names of a pipeline, and the thing behind each name.
//!
//! Knows inputs, nodes and iterations, not the slots with these names.

use indexmap::IndexMap;

use super::error::Diagnostic;
use super::position::{Name, Span};
use super::spec::Spec;
use super::spec::baselines::Baselines;
use super::spec::evaluate::Evaluate;
use super::spec::input::Input;
use super::spec::operator::{Operator, Output};
use crate::did_you_mean::nearest;

/// The thing behind a name. Indices are positions in the mappings of the pipeline file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One of `inputs`.
    Source(usize),
    /// One of `nodes`.
    Once(usize),
    /// One of `iterate.nodes`, in the same iteration.
    Same(usize),
    /// One of `iterate.nodes`, in the last iteration.
    Last(usize),
}

/// The section of the file with a name. It decides what the name can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// `nodes`, or `iterate.start`: only inputs and nodes outside `iterate`.
    Nodes,
    /// `iterate.nodes`: everything.
    Iterate,
}

/// A node of `iterate` before the first iteration.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// `iterate.start` does not name it.
    Unknown,
    /// `none`: its slot is empty.
    Empty,
    /// An input or a node outside `iterate`.
    From(Target),
}

struct Entry {
    target: Target,
    output: Output,
    span: Span,
}

/// All names.
pub(super) struct Scope {
    entries: IndexMap<String, Entry>,
    /// The start of each of `iterate.nodes`.
    start: Vec<Start>,
}

/// Names with another meaning: no start, the iteration, and the table of events of every run.
const RESERVED: [&str; 3] = ["none", "t", "journal"];

/// The further outputs of a node, as suffixes of its name.
pub(super) fn derived(operator: &Operator) -> Vec<String> {
    let fixed: &[&str] = match operator {
        Operator::Train(_) => &["pairs", "training"],
        Operator::Sft(_) => &["training"],
        Operator::RewardModel(_) => &["training", "ranking"],
        Operator::Evaluate(evaluate) => return of_evaluation(evaluate),
        Operator::Benchmark(_) => &["answers", "items", "baseline_answers", "baseline_items"],
        _ => &[],
    };
    let mut parts: Vec<String> = fixed.iter().map(|part| part.to_string()).collect();
    if let Operator::Benchmark(benchmark) = operator {
        for (task, metric) in
            benchmark.sorted().iter().flat_map(|(name, task)| task.reward_metrics().into_iter().map(|(m, _)| (&name.value, m)))
        {
            for part in ["responses", "rewards", "baseline_responses", "baseline_rewards"] {
                let (baseline, part) = part.strip_prefix("baseline_").map_or(("", part), |part| ("baseline_", part));
                parts.push(format!("{baseline}{task}_{metric}_{part}"));
            }
        }
    }
    parts
}

/// The further outputs of an evaluation: those of each baseline, and of the judge.
fn of_evaluation(evaluate: &Evaluate) -> Vec<String> {
    let mut parts = vec!["responses".to_string(), "rewards".to_string()];
    for (index, baseline) in evaluate.baseline.0.iter().enumerate() {
        let part = Baselines::part(index, &baseline.value);
        parts.extend([format!("{part}_responses"), format!("{part}_rewards")]);
        match (index, &evaluate.judge) {
            (0, Some(_)) => parts.push("judge".to_string()),
            (0, None) => {}
            (_, Some(_)) => parts.extend([format!("{part}_judge"), part]),
            (_, None) => parts.push(part),
        }
    }
    parts
}

impl Scope {
    /// The names of a pipeline. Each is valid and unique, also among the further outputs of all
    /// nodes.
    pub(super) fn new(spec: &Spec) -> Result<Self, Diagnostic> {
        let mut scope = Self { entries: IndexMap::new(), start: Vec::new() };
        for (index, (name, input)) in spec.inputs.iter().enumerate() {
            let output = match input {
                Input::Table(_) => Output::Table,
                Input::Model { .. } => Output::Model,
                Input::Reward { .. } => Output::Reward,
            };
            scope.add_name(name, Target::Source(index), output)?;
        }
        let inner = || spec.iterate.iter().flat_map(|iterate| &iterate.nodes);
        for (index, (name, node)) in spec.nodes.iter().enumerate() {
            scope.add_name(name, Target::Once(index), node.operator.output())?;
        }
        for (index, (name, node)) in inner().enumerate() {
            scope.add_name(name, Target::Same(index), node.operator.output())?;
            scope.start.push(Start::Unknown);
        }
        for (name, node) in spec.nodes.iter().chain(inner()) {
            for part in derived(&node.operator) {
                if let Some(clash) = scope.entries.get(&format!("{name}_{part}", name = name.value)) {
                    let name = &name.value;
                    let operator = node.operator.name();
                    let message = format!("\"{name}_{part}\" is also what the {operator} node \"{name}\" makes; choose another name");
                    return Err(Diagnostic::at(clash.span, message));
                }
            }
        }
        for (name, value) in spec.iterate.iter().flat_map(|iterate| &iterate.start) {
            scope.add_start(name, value)?;
        }
        Ok(scope)
    }

    fn add_name(&mut self, name: &Name, target: Target, output: Output) -> Result<(), Diagnostic> {
        let Name { value: text, span } = name;
        let valid = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.len() <= 64
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !valid {
            let expected = "expected a name of at most 64 lower-case letters, digits and \"_\" that begins with a letter";
            return Err(Diagnostic::at(*span, format!("{expected}, found \"{text}\"")));
        }
        if RESERVED.contains(&text.as_str()) {
            return Err(Diagnostic::at(*span, format!("\"{text}\" has a meaning of its own; choose another name")));
        }
        if let Some(earlier) = self.entries.get(text) {
            return Err(Diagnostic::at(*span, format!("the name \"{text}\" is already given on line {}", earlier.span.line)));
        }
        self.entries.insert(text.clone(), Entry { target, output, span: *span });
        Ok(())
    }

    /// Adds one entry of `iterate.start`.
    fn add_start(&mut self, name: &Name, value: &Name) -> Result<(), Diagnostic> {
        let Some(&Entry { target: Target::Same(index), output, .. }) = self.entries.get(&name.value) else {
            let inner = self.entries.iter().filter(|(_, entry)| matches!(entry.target, Target::Same(_)));
            let near = nearest(&name.value, inner.map(|(name, _)| name.as_str()));
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            return Err(Diagnostic::at(name.span, format!("\"{}\" is not one of the nodes of iterate{near}", name.value)));
        };
        let value = if value.value == "none" { Start::Empty } else { Start::From(self.resolve(value, output, Section::Nodes)?) };
        let start = self.start.get_mut(index).ok_or_else(|| Diagnostic::internal("scope: a node of iterate has no start"))?;
        *start = value;
        Ok(())
    }

    /// The thing behind a name in a slot for an `expected` output.
    pub(super) fn resolve(&self, name: &Name, expected: Output, section: Section) -> Result<Target, Diagnostic> {
        let (target, found) = self.find(name, expected.noun(), section, |entry| expected.takes(entry.output))?;
        if expected.takes(found) {
            return Ok(target);
        }
        Err(Diagnostic::at(name.span, format!("expected {}, but \"{}\" is {}", expected.noun(), name.value, found.noun())))
    }

    /// The thing behind a name in a slot for any table.
    pub(super) fn table(&self, name: &Name, section: Section) -> Result<Target, Diagnostic> {
        let (target, found) = self.find(name, "a table", section, |entry| entry.output.is_table())?;
        if found.is_table() {
            return Ok(target);
        }
        Err(Diagnostic::at(name.span, format!("expected a table, but \"{}\" is {}", name.value, found.noun())))
    }

    /// The thing behind a name in a slot for any table or model. A reward is one if a node made it.
    pub(super) fn table_or_model(&self, name: &Name, section: Section) -> Result<Target, Diagnostic> {
        let noun = "a table or a model";
        let fits = |target: Target, output: Output| output != Output::Reward || !matches!(target, Target::Source(_));
        let (target, found) = self.find(name, noun, section, |entry| fits(entry.target, entry.output))?;
        if fits(target, found) {
            return Ok(target);
        }
        Err(Diagnostic::at(name.span, format!("expected {noun}, but \"{}\" is {}", name.value, found.noun())))
    }

    fn find(&self, name: &Name, noun: &str, section: Section, fits: impl Fn(&Entry) -> bool) -> Result<(Target, Output), Diagnostic> {
        let diagnostic = |message: String| Err(Diagnostic::at(name.span, message));
        let (base, last) = match name.value.strip_suffix("[t-1]") {
            Some(base) => (base, true),
            None => (name.value.as_str(), false),
        };
        if base.contains(['[', ']']) {
            return diagnostic(format!("expected a name, alone or followed by [t-1], found \"{}\"", name.value));
        }
        let Some(entry) = self.entries.get(base) else {
            let seen = || self.entries.iter().filter(|(_, entry)| section == Section::Iterate || !matches!(entry.target, Target::Same(_)));
            let fitting: Vec<&str> = seen().filter(|(_, entry)| fits(entry)).map(|(name, _)| name.as_str()).collect();
            let near = nearest(base, fitting.iter().copied()).or_else(|| nearest(base, seen().map(|(name, _)| name.as_str())));
            let suffix = if last { "[t-1]" } else { "" };
            let hint = match near {
                Some(near) => format!("; did you mean \"{near}{suffix}\"?"),
                None if fitting.is_empty() => "; there is none here".to_string(),
                None => format!(": {}", crate::did_you_mean::one_of(&fitting)),
            };
            return diagnostic(format!("unknown input \"{}\": expected {noun}{hint}", name.value));
        };
        match (entry.target, last, section) {
            (_, true, Section::Nodes) => diagnostic(format!("\"{}\": only nodes of iterate have a last iteration to read", name.value)),
            (Target::Same(_), false, Section::Nodes) => {
                diagnostic(format!("\"{base}\" is made in every iteration; here only inputs and nodes outside iterate can be read"))
            }
            (Target::Same(index), true, Section::Iterate) => match self.start.get(index) {
                Some(Start::Empty | Start::From(_)) => Ok((Target::Last(index), entry.output)),
                _ => diagnostic(format!("start does not say what \"{}\" is at t = 1; add it there: `{base}: none`, or a name", name.value)),
            },
            (_, true, Section::Iterate) => {
                diagnostic(format!("\"{base}\" is not made in iterate and never changes; write it without [t-1]"))
            }
            (target, false, _) => Ok((target, entry.output)),
        }
    }

    /// The thing before the first iteration of a node of `iterate`; none if it starts from `none`.
    pub(super) fn start(&self, index: usize) -> Option<Target> {
        match self.start.get(index) {
            Some(Start::From(target)) => Some(*target),
            Some(Start::Empty | Start::Unknown) | None => None,
        }
    }
}
