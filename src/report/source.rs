//! An opened run: its tables in SQL, its manifests and journal, and its pipeline's nodes with their
//! inputs.

use std::collections::{BTreeMap, VecDeque};

use arrow::json::LineDelimitedWriter;
use serde::de::DeserializeOwned;

use super::error::ReportError;
use crate::pipeline::spec::baselines::Baselines;
use crate::pipeline::spec::input::Input;
use crate::pipeline::spec::operator::Node as Written;
use crate::pipeline::{Operator, Pipeline, Spec};
use crate::sql::Session;
use crate::store::{Event, EventKind, Manifest, OutputKey, OutputKind, Run};
use crate::tables::TableKind;

/// A run as far as it is committed.
pub struct Source {
    /// The run.
    pub run: Run,
    /// Its pipeline, every default written out.
    pub spec: Spec,
    /// The text of its `pipeline.yaml`, without the checksum.
    pub yaml: String,
    /// Inputs and nodes, in the file's order.
    pub nodes: Vec<Node>,
    /// Every output with a manifest.
    pub outputs: Vec<(OutputKey, Manifest)>,
    /// Its journal.
    pub events: Vec<Event>,
    /// Whether a process writes it now.
    pub running: bool,
    session: Session,
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

impl Source {
    /// Opens a run.
    ///
    /// # Errors
    /// Its pipeline, a manifest or the journal cannot be read, or a part differs from its manifest.
    pub fn open(run: &Run) -> Result<Self, ReportError> {
        let path = run.pipeline_file()?;
        let text = std::fs::read_to_string(&path).map_err(|error| form(path.display(), error))?;
        let spec = Pipeline::read(&path.display().to_string(), &text, &[])?.spec;
        let yaml = text.lines().filter(|line| !line.starts_with("# seal:")).map(|line| format!("{line}\n")).collect();
        let outputs = run.manifests()?;
        let session = Session::over_run(run)?;
        let nodes = nodes(&spec, &outputs);
        Ok(Self {
            nodes,
            spec,
            yaml,
            outputs,
            events: run.journal().read()?,
            running: run.is_locked() == Some(true),
            session,
            run: run.clone(),
        })
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        self.run.name()
    }

    /// The number of iterations of the pipeline; 0 without `iterate`.
    pub fn iterations(&self) -> u32 {
        last_iteration(&self.spec)
    }

    /// The rows of a query, as structures with the names of its columns.
    ///
    /// # Errors
    /// The query fails, or its rows are others.
    pub fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, ReportError> {
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        for batch in self.session.query(sql)? {
            writer.write(&batch).map_err(|error| form("rows", error))?;
        }
        writer.finish().map_err(|error| form("rows", error))?;
        serde_json::Deserializer::from_slice(&text).into_iter().collect::<Result<_, _>>().map_err(|error| form("rows", error))
    }

    /// The session, to add tables to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The columns of a table; none if it is not there yet.
    pub fn columns(&self, table: &str) -> Vec<String> {
        let schema = self.session.schema_of(&format!("SELECT * FROM {}", quoted(table)));
        schema.map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect()).unwrap_or_default()
    }

    /// Whether anything of a table is committed.
    pub fn has(&self, table: &str) -> bool {
        self.outputs.iter().any(|(place, manifest)| place.kind == OutputKind::Table && place.name == table && manifest.rows() > 0)
    }

    /// The non-empty tables of a kind, by name, in the order of the pipeline's nodes.
    pub fn tables(&self, kind: TableKind) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (place, manifest) in &self.outputs {
            if manifest.table == Some(kind) && manifest.rows() > 0 && names.last() != Some(&place.name.as_str()) {
                names.push(&place.name);
            }
        }
        let rank = |name: &&str| self.owner(name).and_then(|owner| self.nodes.iter().position(|node| node.name == owner.name));
        names.sort_by_key(rank);
        names
    }

    /// An expression for a table's iteration: 0 where it is made once.
    pub fn iteration_of(&self, table: &str) -> &'static str {
        let iterated = self.outputs.iter().any(|(place, _)| place.name == table && place.iteration.is_some());
        if iterated { "CAST(iteration AS BIGINT)" } else { "CAST(0 AS BIGINT)" }
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

    /// Seconds spent on an output in this run, over all calls; a killed one leaves no trace. `None`
    /// if it was never begun here.
    pub fn seconds(&self, place: &OutputKey) -> Option<f64> {
        let mut seconds = self.events.iter().filter(|event| is_of(event, place) && ended(event)).filter_map(|event| event.seconds);
        let first = seconds.next()?;
        Some(first + seconds.sum::<f64>())
    }

    /// Whether one of the store's views is there: its tables are, and no table of the user's own
    /// has its name.
    pub fn has_view(&self, view: &str) -> bool {
        self.session.tables().iter().any(|name| name == view) && !self.outputs.iter().any(|(place, _)| place.name == view)
    }

    /// The nodes' incomplete outputs, as `name` or `name[2]`, with the parts that are there.
    pub fn missing(&self) -> Vec<String> {
        let there: BTreeMap<(&str, Option<u32>), &Manifest> =
            self.outputs.iter().map(|(place, manifest)| ((place.name.as_str(), place.iteration), manifest)).collect();
        let mut missing = Vec::new();
        for node in &self.nodes {
            for (iteration, output) in node.iterations.iter().flat_map(|iteration| node.outputs.iter().map(|output| (*iteration, output))) {
                let manifest = there.get(&(output.as_str(), iteration));
                if manifest.is_some_and(|manifest| manifest.complete) {
                    continue;
                }
                let name = iteration.map_or(output.clone(), |iteration| format!("{output}[{iteration}]"));
                missing.push(match manifest.map(|manifest| (manifest.parts.len(), manifest.part_count)) {
                    Some((some, of)) if some > 0 => format!("{name} ({some} of {of} parts)"),
                    _ => name,
                });
            }
        }
        missing
    }
}

/// The number of iterations; 0 without `iterate`.
fn last_iteration(spec: &Spec) -> u32 {
    let last = spec.iterate.as_ref().and_then(|iterate| iterate.t.value.strip_prefix("1..")?.parse().ok());
    last.unwrap_or(0)
}

/// An error about the form of something.
pub fn form(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> ReportError {
    ReportError::Form { what: what.to_string(), problem: problem.to_string() }
}

/// A table's name in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_of(event: &Event, place: &OutputKey) -> bool {
    event.node == place.name && event.iteration == place.iteration
}

fn ended(event: &Event) -> bool {
    matches!(event.event, EventKind::NodeDone | EventKind::NodeFailed | EventKind::Interrupted)
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
