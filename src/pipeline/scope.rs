//! The names of a pipeline, and where each leads from where it is written.
//!
//! Knows inputs, nodes and iterations; not the slots that the names stand in.

use indexmap::IndexMap;

use super::error::Fault;
use super::position::{Name, Span};
use super::spec::Spec;
use super::spec::input::Input;
use super::spec::operator::{Operator, Output};
use crate::did_you_mean::nearest;

/// Where a name leads. Indices are positions in the pipeline file's mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One of `inputs`.
    Source(usize),
    /// One of `nodes`, which run once.
    Once(usize),
    /// One of `iterate.nodes`, in the same iteration.
    Same(usize),
    /// One of `iterate.nodes`, in the last iteration.
    Last(usize),
}

/// Where a name is written: what can be read there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// Outside `iterate`: inputs and nodes outside.
    Outside,
    /// In one of the nodes of `iterate`: all of it.
    Inside,
}

struct Entry {
    target: Target,
    output: Output,
    span: Span,
}

/// All names.
pub(super) struct Scope {
    entries: IndexMap<String, Entry>,
    /// What each of `iterate.nodes` is before the first iteration: not said, `none`, or a target.
    start: Vec<Option<Option<Target>>>,
}

/// Names that mean something else: no start, the iteration, and the table of events that every run has.
const RESERVED: [&str; 3] = ["none", "t", "journal"];

/// The names that a node makes besides its own, and what each is.
pub(super) fn derived(operator: &Operator) -> &'static [&'static str] {
    match operator {
        Operator::Train(_) => &["pairs", "training"],
        Operator::Sft(_) => &["training"],
        Operator::RewardModel(_) => &["training", "ranking"],
        Operator::Evaluate(_) => &["responses", "rewards", "baseline_responses", "baseline_rewards"],
        _ => &[],
    }
}

impl Scope {
    /// The names of a pipeline: each valid, given once, and not taken by what another node brings along.
    pub(super) fn of(spec: &Spec) -> Result<Self, Fault> {
        let mut scope = Self { entries: IndexMap::new(), start: Vec::new() };
        for (index, (name, input)) in spec.inputs.iter().enumerate() {
            let output = match input {
                Input::Table(_) => Output::Table,
                Input::Model { .. } => Output::Model,
                Input::Reward { .. } => Output::Reward,
            };
            scope.give(name, Target::Source(index), output)?;
        }
        let inner = || spec.iterate.iter().flat_map(|iterate| &iterate.nodes);
        for (index, (name, node)) in spec.nodes.iter().enumerate() {
            scope.give(name, Target::Once(index), node.operator.output())?;
        }
        for (index, (name, node)) in inner().enumerate() {
            scope.give(name, Target::Same(index), node.operator.output())?;
            scope.start.push(None);
        }
        for (name, node) in spec.nodes.iter().chain(inner()) {
            for part in derived(&node.operator) {
                if let Some(clash) = scope.entries.get(&format!("{name}_{part}", name = name.value)) {
                    let (name, operator) = (&name.value, node.operator.name());
                    let message = format!("\"{name}_{part}\" is also what the {operator} node \"{name}\" makes; choose another name");
                    return Err(Fault::at(clash.span, message));
                }
            }
        }
        for (name, value) in spec.iterate.iter().flat_map(|iterate| &iterate.start) {
            scope.begin(name, value)?;
        }
        Ok(scope)
    }

    fn give(&mut self, name: &Name, target: Target, output: Output) -> Result<(), Fault> {
        let Name { value: text, span } = name;
        let valid = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.len() <= 64
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !valid {
            let expected = "expected a name of at most 64 lower-case letters, digits and \"_\" that begins with a letter";
            return Err(Fault::at(*span, format!("{expected}, found \"{text}\"")));
        }
        if RESERVED.contains(&text.as_str()) {
            return Err(Fault::at(*span, format!("\"{text}\" has a meaning of its own; choose another name")));
        }
        if let Some(earlier) = self.entries.get(text) {
            return Err(Fault::at(*span, format!("the name \"{text}\" is already given on line {}", earlier.span.line)));
        }
        self.entries.insert(text.clone(), Entry { target, output, span: *span });
        Ok(())
    }

    /// Takes in one entry of `iterate.start`.
    fn begin(&mut self, name: &Name, value: &Name) -> Result<(), Fault> {
        let Some(&Entry { target: Target::Same(index), output, .. }) = self.entries.get(&name.value) else {
            let inner = self.entries.iter().filter(|(_, entry)| matches!(entry.target, Target::Same(_)));
            let near = nearest(&name.value, inner.map(|(name, _)| name.as_str()));
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            return Err(Fault::at(name.span, format!("\"{}\" is not one of the nodes of iterate{near}", name.value)));
        };
        let target = if value.value == "none" { None } else { Some(self.resolve(value, output, Where::Outside)?) };
        if let Some(start) = self.start.get_mut(index) {
            *start = Some(target);
        }
        Ok(())
    }

    /// Where a name leads that stands for an `expected` output.
    pub(super) fn resolve(&self, name: &Name, expected: Output, place: Where) -> Result<Target, Fault> {
        let (target, found) = self.find(name, expected.noun(), place, |entry| expected.takes(entry.output))?;
        if expected.takes(found) {
            return Ok(target);
        }
        Err(Fault::at(name.span, format!("expected {}, but \"{}\" is {}", expected.noun(), name.value, found.noun())))
    }

    /// Where a name leads that stands for any table.
    pub(super) fn table(&self, name: &Name, place: Where) -> Result<Target, Fault> {
        let (target, found) = self.find(name, "a table", place, |entry| entry.output.is_table())?;
        if found.is_table() {
            return Ok(target);
        }
        Err(Fault::at(name.span, format!("expected a table, but \"{}\" is {}", name.value, found.noun())))
    }

    fn find(&self, name: &Name, noun: &str, place: Where, fits: impl Fn(&Entry) -> bool) -> Result<(Target, Output), Fault> {
        let fault = |message: String| Err(Fault::at(name.span, message));
        let (base, last) = match name.value.strip_suffix("[t-1]") {
            Some(base) => (base, true),
            None => (name.value.as_str(), false),
        };
        if base.contains(['[', ']']) {
            return fault(format!("expected a name, alone or followed by [t-1], found \"{}\"", name.value));
        }
        let Some(entry) = self.entries.get(base) else {
            let seen = || self.entries.iter().filter(|(_, entry)| place == Where::Inside || !matches!(entry.target, Target::Same(_)));
            let fitting: Vec<&str> = seen().filter(|(_, entry)| fits(entry)).map(|(name, _)| name.as_str()).collect();
            let near = nearest(base, fitting.iter().copied()).or_else(|| nearest(base, seen().map(|(name, _)| name.as_str())));
            let suffix = if last { "[t-1]" } else { "" };
            let hint = match near {
                Some(near) => format!("; did you mean \"{near}{suffix}\"?"),
                None if fitting.is_empty() => "; there is none here".to_string(),
                None => format!(": {}", crate::did_you_mean::one_of(&fitting)),
            };
            return fault(format!("unknown input \"{}\": expected {noun}{hint}", name.value));
        };
        match (entry.target, last, place) {
            (_, true, Where::Outside) => fault(format!("\"{}\": only nodes of iterate have a last iteration to read", name.value)),
            (Target::Same(_), false, Where::Outside) => {
                fault(format!("\"{base}\" is made in every iteration; here only inputs and nodes outside iterate can be read"))
            }
            (Target::Same(index), true, Where::Inside) => match self.start.get(index) {
                Some(Some(_)) => Ok((Target::Last(index), entry.output)),
                _ => fault(format!("start does not say what \"{}\" is at t = 1; add it there: `{base}: none`, or a name", name.value)),
            },
            (_, true, Where::Inside) => fault(format!("\"{base}\" is not made in iterate and never changes; write it without [t-1]")),
            (target, false, _) => Ok((target, entry.output)),
        }
    }

    /// What a node of `iterate` is before the first iteration.
    pub(super) fn start(&self, index: usize) -> Option<Target> {
        self.start.get(index).copied().flatten().flatten()
    }
}
