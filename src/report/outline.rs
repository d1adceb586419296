//! The pipeline of a run: its nodes with their inputs and outputs, and the outputs to expect.
//!
//! Knows the pipeline file and manifests, no rows.

use std::collections::VecDeque;

use super::error::ReportError;
use crate::pipeline::spec::baselines::Baselines;
use crate::pipeline::spec::input::Input;
use crate::pipeline::spec::operator::Node as Written;
use crate::pipeline::{Operator, Pipeline, Spec};
use crate::store::{Manifest, OutputKey, Run};

/// The pipeline of a run.
pub struct Outline {
    /// The pipeline, every default written out.
    pub spec: Spec,
    /// The text of `pipeline.yaml`, without the checksum.
    pub yaml: String,
    /// Inputs and nodes, in the file's order.
    pub nodes: Vec<Node>,
}

/// An input or a node of the pipeline.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The operator, or the kind of an input: `table`, `model` or `reward`.
    pub operator: &'static str,
    /// Its part of the pipeline.
    pub part: Part,
    /// Its inputs.
    pub reads: Vec<Read>,
    /// Its outputs: the one of its name, and the comparisons of an evaluation beside it.
    pub outputs: Vec<String>,
    /// The iterations with these outputs; `None` outside iterate, nothing for an input.
    pub iterations: Vec<Option<u32>>,
}

/// A part of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From outside.
    Input,
    /// Made once.
    Once,
    /// Made in every iteration.
    Loop,
}

/// An input of a node.
#[derive(Debug)]
pub struct Read {
    /// The slot.
    pub slot: String,
    /// The name of the node or input at the other end.
    pub name: String,
    /// Whether it is the output of the last iteration.
    pub last: bool,
}

/// An output to expect of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    /// The output's name.
    pub output: &'a str,
    /// The iteration; none for a node made once.
    pub iteration: Option<u32>,
}

impl Outline {
    /// Reads the pipeline of a run. `outputs` are the run's manifests.
    ///
    /// # Errors
    /// The run's `pipeline.yaml` cannot be read.
    pub fn read(run: &Run, outputs: &[(OutputKey, Manifest)]) -> Result<Self, ReportError> {
        let path = run.pipeline_file()?;
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| ReportError::Form { what: file.clone(), problem: error.to_string() })?;
        let spec = Pipeline::read(&file, &text, &[])?.spec;
        let yaml = text.lines().filter(|line| !line.starts_with("# seal:")).map(|line| format!("{line}\n")).collect();
        let nodes = nodes(&spec, outputs);
        Ok(Self { spec, yaml, nodes })
    }

    /// The number of iterations of the pipeline; 0 without `iterate`.
    pub fn iterations(&self) -> u32 {
        last_iteration(&self.spec)
    }

    /// The node that is called so.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of an output: the one of its name, else the one with a name at its beginning
    /// (`policy` of `policy_training`).
    pub fn owner(&self, output: &str) -> Option<&Node> {
        let begins = |node: &&Node| output.strip_prefix(node.name.as_str()).is_some_and(|rest| rest.starts_with('_'));
        self.node(output).or_else(|| self.nodes.iter().filter(begins).max_by_key(|node| node.name.len()))
    }

    /// The nodes with an operator, in the file's order.
    pub fn with_operator<'a>(&'a self, operator: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.operator == operator)
    }

    /// The nearest node with an operator upstream of `name`, or `name` itself.
    pub fn upstream(&self, name: &str, operator: &str) -> Option<&Node> {
        let mut waiting = VecDeque::from([name]);
        let mut seen = Vec::new();
        while let Some(name) = waiting.pop_front() {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let Some(node) = self.node(name) else { continue };
            if node.operator == operator {
                return Some(node);
            }
            waiting.extend(node.reads.iter().map(|read| read.name.as_str()));
        }
        None
    }

    /// The outputs of a node to expect, by iteration; none of an input.
    pub fn expected(node: &Node) -> Vec<Expected<'_>> {
        let of = |iteration: &Option<u32>| {
            let iteration = *iteration;
            node.outputs.iter().map(move |output| Expected { output, iteration })
        };
        node.iterations.iter().flat_map(of).collect()
    }
}

/// The number of iterations; 0 without `iterate`.
fn last_iteration(spec: &Spec) -> u32 {
    let last = spec.iterate.as_ref().and_then(|iterate| iterate.t.value.strip_prefix("1..")?.parse().ok());
    last.unwrap_or(0)
}

/// The outputs of a node: the one of its name, and the comparisons of an evaluation beside it.
fn outputs_of(name: &str, operator: &Operator) -> Vec<String> {
    let Operator::Evaluate(evaluate) = operator else { return vec![name.to_string()] };
    let compared = evaluate.baseline.0.iter().enumerate().map(|(index, baseline)| match index {
        0 => name.to_string(),
        _ => format!("{name}_{}", Baselines::part(index, &baseline.value)),
    });
    let judged = |compared: String| if evaluate.judge.is_some() { vec![format!("{compared}_judge"), compared] } else { vec![compared] };
    compared.flat_map(judged).collect()
}

fn nodes(spec: &Spec, outputs: &[(OutputKey, Manifest)]) -> Vec<Node> {
    let input = |input: &Input| match input {
        Input::Table(_) => "table",
        Input::Model { .. } => "model",
        Input::Reward { .. } => "reward",
    };
    let inputs = spec.inputs.iter().map(|(name, written)| Node {
        name: name.value.clone(),
        operator: input(written),
        part: Part::Input,
        reads: Vec::new(),
        outputs: Vec::new(),
        iterations: Vec::new(),
    });
    let read = |slot: &str, name: &str| {
        let (plain, last) = name.strip_suffix("[t-1]").map_or((name, false), |plain| (plain, true));
        Read { slot: slot.to_string(), name: plain.to_string(), last }
    };
    let last = last_iteration(spec);
    let node = |name: &str, written: &Written, part: Part| {
        let slots = written.operator.slots().into_iter().map(|(slot, name, _)| read(slot.name(), &name.value));
        let given = match &written.operator {
            Operator::Command(command) => command.inputs.iter().map(|(slot, name)| read(&slot.value, &name.value)).collect(),
            _ => Vec::new(),
        };
        // The recipe of an output lists the tables of its query.
        let recipe = outputs.iter().find(|(place, _)| place.name == name).map(|(_, manifest)| &manifest.recipe);
        let tables = recipe.into_iter().flat_map(|recipe| recipe.inputs.keys()).filter_map(|slot| slot.strip_prefix("table "));
        let tables = tables.map(|table| Read { slot: "table".to_string(), name: table.to_string(), last: false });
        let reads = slots.chain(given).chain(tables).collect();
        let iterations = match part {
            Part::Loop => (1..=last).filter(|t| written.operator.is_due(*t, last)).map(Some).collect(),
            Part::Input | Part::Once => vec![None],
        };
        let outputs = outputs_of(name, &written.operator);
        Node { name: name.to_string(), operator: written.operator.name(), part, reads, outputs, iterations }
    };
    let once = spec.nodes.iter().map(|(name, written)| node(&name.value, written, Part::Once));
    let inner = spec.iterate.iter().flat_map(|iterate| &iterate.nodes);
    let inner = inner.map(|(name, written)| node(&name.value, written, Part::Loop));
    inputs.chain(once).chain(inner).collect()
}
