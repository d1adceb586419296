//! From the checked file to the graph: writes out the iterations, and splits some nodes into
//! several tasks.
//!
//! Some tasks read more than the names in the file. The unrolling finds these inputs by lineage:
//!
//! - score: the `prompts` of its responses; the `tables` of the queries of the reward; the
//!   `rewards` named by the reward; the `policy`, for a reward server
//! - merge: the `responses` of each table of fresh rewards
//! - `<train>_pairs` (reference): all `responses` of the pairs, of every iteration with responses
//!   in the pool
//! - train: the same `responses`; its `pairs` are `<train>_pairs`
//! - both, on a table of preferences: `preferences` in place of pairs and responses;
//!   `<train>_pairs` tokenizes them like `from`
//! - `<reward_model>_ranking` (rank): `model`, the reward model; the same `preferences`
//! - benchmark: `graded` and `baseline_graded`, each of a task that grades the answers of another
//! - evaluate: `responses`, `rewards`, `baseline_responses` and `baseline_rewards`, each of a task
//!   of its own (`evaluation.rs`)
//!
//! Of a command's output, such an input is the command's input with the slot's name.
//!
//! Knows the inputs of every task, not how a task runs.

mod benchmark;
mod evaluation;
mod header;
mod lineage;

use std::collections::HashMap;
use std::path::Path;

use chrono::NaiveDate;
use serde_json::{Value, json};

use self::header::{cluster, date, iterations, run_name, template_variables};
use super::adaptive;
use super::check::{Link, ResolvedNode, check_every, order, resolve_nodes};
use super::error::Diagnostic;
use super::files;
use super::graph::{Binding, Graph, Input, Source, SourceKind, Task};
use super::hidden_queries::without_queries;
use super::paths;
use super::precision;
use super::scope::{Scope, Section, Target};
use super::slot::Slot;
use super::spec::Spec;
use super::spec::operator::Operator;
use super::spec::precision::Precision;
use super::spec::rank::Rank;
use super::spec::reference::Reference;
use super::spec::select::{Select, Strategy};
use super::spec::train::Train;

/// The most tasks; a run of more is a mistake.
const MOST_TASKS: usize = 20_000;

/// Checks a pipeline file and writes out its tasks.
pub(super) fn unroll(mut spec: Spec, folder: &Path) -> Result<Graph, Diagnostic> {
    let iterations = iterations(&spec)?;
    run_name(&spec.name)?;
    let date = date(&spec)?;
    let variables = template_variables(&spec)?;
    spec.tracking.check()?;
    let cluster = cluster(&spec)?;
    adaptive::write_out(&mut spec)?;
    let folder = paths::base(spec.folder.as_ref(), folder)?;
    let sources = files::find(&mut spec, &folder)?;
    let scope = Scope::new(&spec)?;
    let no_nodes = indexmap::IndexMap::new();
    let inner_nodes = spec.iterate.as_ref().map_or(&no_nodes, |iterate| &iterate.nodes);
    let tasks = spec.nodes.len().saturating_add(inner_nodes.len().saturating_mul(iterations as usize));
    if tasks == 0 || tasks > MOST_TASKS {
        return Err(Diagnostic::nowhere(format!("expected 1 to {MOST_TASKS} nodes in `nodes` and in all iterations, found {tasks}")));
    }
    let once = resolve_nodes(&spec, &scope, &spec.nodes, Section::Nodes)?;
    let inner = resolve_nodes(&spec, &scope, inner_nodes, Section::Iterate)?;
    check_every(&once, &inner)?;
    let once_order = order(&once, |link| match link.target {
        Target::Once(index) => Some(index),
        _ => None,
    })?;
    let inner_order = order(&inner, |link| match link.target {
        Target::Same(index) => Some(index),
        _ => None,
    })?;
    let mut unrolling = Unrolling {
        sources: &sources,
        scope: &scope,
        date,
        variables,
        precision: spec.precision.as_ref().map_or(Precision::F32, |precision| precision.value),
        tasks: Vec::new(),
        once: vec![None; once.len()],
        same: Vec::new(),
        last: Vec::new(),
        graded_baselines: HashMap::new(),
        guards: Vec::new(),
        sampled: Vec::new(),
    };
    for index in once_order {
        let node = once.get(index).ok_or_else(|| Diagnostic::internal("unroll: a node outside iterate is missing"))?;
        unrolling.add_fixed_baselines(node)?;
        let task = unrolling.add_node(node, None)?;
        set(&mut unrolling.once, index, task)?;
    }
    inner.iter().try_for_each(|node| unrolling.add_fixed_baselines(node))?;
    for t in 1..=iterations {
        unrolling.last = std::mem::replace(&mut unrolling.same, vec![None; inner.len()]);
        for index in inner_order.iter().copied() {
            let node = inner.get(index).ok_or_else(|| Diagnostic::internal("unroll: a node of iterate is missing"))?;
            if !node.node.operator.is_due(t, iterations) {
                continue;
            }
            let task = unrolling.add_node(node, Some(t))?;
            set(&mut unrolling.same, index, task)?;
        }
    }
    let tasks = unrolling.tasks;
    let params = without_queries(&spec).params;
    Ok(Graph { name: spec.name.value.clone(), seed: spec.seed, params, iterations, folder, sources, tasks, cluster, spec })
}

/// Notes the task of the node at `index`.
fn set(tasks: &mut [Option<usize>], index: usize, task: usize) -> Result<(), Diagnostic> {
    let entry = tasks.get_mut(index).ok_or_else(|| Diagnostic::internal("unroll: a node has no entry for its task"))?;
    *entry = Some(task);
    Ok(())
}

/// The graph so far.
struct Unrolling<'a> {
    sources: &'a [Source],
    scope: &'a Scope,
    /// The date for chat templates.
    date: Option<NaiveDate>,
    /// The variables for chat templates, an object.
    variables: Option<Value>,
    /// The precision of models, unless their node has another.
    precision: Precision,
    tasks: Vec<Task>,
    /// The task of each node of `nodes`; none until it is added.
    once: Vec<Option<usize>>,
    /// The task of each node of `iterate` in this iteration; none until it is added.
    same: Vec<Option<usize>>,
    /// The task of each node of `iterate` in the previous iteration.
    last: Vec<Option<usize>>,
    /// The graded answers of the baseline of each `benchmark`, by the node's name.
    graded_baselines: HashMap<String, usize>,
    /// Tasks whose failure ends the run, with their iterations.
    guards: Vec<(u32, usize)>,
    /// The responses of evaluations so far.
    sampled: Vec<Sampled>,
}

/// The responses of a model in an evaluation, and their rewards.
struct Sampled {
    /// The node of the evaluation.
    node: String,
    /// The model, or the table of texts.
    model: Input,
    /// The task of the responses.
    responses: usize,
    /// The task of their rewards.
    rewards: usize,
}

impl Unrolling<'_> {
    /// Adds the tasks of a node in an iteration; returns the task with the name of the node.
    fn add_node(&mut self, node: &ResolvedNode<'_>, t: Option<u32>) -> Result<usize, Diagnostic> {
        let mut operator = node.node.operator.clone();
        let mut inputs = self.bindings(&node.links, t)?;
        match &mut operator {
            Operator::Select(select) => {
                if !inputs.iter().any(|input| input.slot == Slot::Pool) && select.pool.is_some() {
                    select.strategy = Strategy::All;
                }
                // Settings without an effect get one value: equal selections have equal
                // fingerprints.
                if select.strategy == Strategy::All {
                    let (prompts, within) = (select.prompts.clone(), select.within.clone());
                    *select = Select { strategy: Strategy::All, prompts, within, ..Select::default() };
                    inputs.retain(|input| [Slot::Prompts, Slot::Within].contains(&input.slot));
                }
            }
            Operator::Score(score) => {
                let responses = required(&inputs, Slot::Responses)?.input;
                inputs.extend(self.policy_for_server(&inputs, responses, node.name.span)?);
                if score.prompts.is_none() {
                    inputs.push(self.required_behind(responses, Slot::Prompts, node.name.span)?);
                }
            }
            Operator::Merge(_) => {
                for fresh in only(&inputs, |slot| slot == Slot::Fresh) {
                    let responses = self.required_behind(fresh.input, Slot::Responses, node.name.span)?;
                    if inputs.contains(&responses) {
                        let problem = format!(
                            "\"{}\" has rewards of \"{}\", which has others already; merge one reward of each response",
                            fresh.name, responses.name
                        );
                        return Err(Diagnostic::at(node.name.span, problem));
                    }
                    inputs.push(responses);
                }
            }
            Operator::Train(settings) => inputs = self.add_reference(node, settings, t, inputs)?,
            Operator::RewardModel(settings) if settings.has_held_out() => {
                let rank = Rank { held_out: settings.held_out.clone(), max_tokens: settings.max_tokens, malformed: settings.malformed };
                let mut ranked = only(&inputs, |slot| slot != Slot::From);
                let model = self.add(node, "", t, operator, inputs)?;
                ranked.push(self.task_binding(Slot::Model, model)?);
                self.add(node, "_ranking", t, Operator::Rank(rank), ranked)?;
                return Ok(model);
            }
            Operator::Benchmark(benchmark) => return self.add_benchmark(node, benchmark, &inputs, t),
            Operator::Evaluate(evaluate) => return self.add_evaluation(node, evaluate, &inputs, t),
            _ => {}
        }
        self.add(node, "", t, operator, inputs)
    }

    /// Adds the reference task of a `train` node; returns the inputs of its training task.
    fn add_reference(
        &mut self,
        node: &ResolvedNode<'_>,
        settings: &Train,
        t: Option<u32>,
        mut inputs: Vec<Binding>,
    ) -> Result<Vec<Binding>, Diagnostic> {
        for input in &mut inputs {
            if input.slot == Slot::Pairs && self.is_own_table(input.input)? {
                input.slot = Slot::Preferences;
            }
        }
        let texts = match find(&inputs, Slot::Pairs) {
            Some(pairs) => self.responses_of_pairs(pairs.input, node.name.span)?,
            None => only(&inputs, |slot| [Slot::From, Slot::Preferences].contains(&slot)),
        };
        let mut referenced = only(&inputs, |slot| [Slot::Pairs, Slot::Reference].contains(&slot));
        referenced.extend(texts.iter().cloned());
        let pairs = self.add(node, "_pairs", t, Operator::Reference(Reference { malformed: settings.malformed }), referenced)?;
        inputs.retain(|input| input.slot == Slot::From);
        inputs.push(self.task_binding(Slot::Pairs, pairs)?);
        inputs.extend(texts.into_iter().filter(|text| text.slot != Slot::From));
        Ok(inputs)
    }

    /// Adds a task with the name of the node and `part`, after all tasks so far.
    fn add(
        &mut self,
        node: &ResolvedNode<'_>,
        part: &str,
        iteration: Option<u32>,
        operator: Operator,
        inputs: Vec<Binding>,
    ) -> Result<usize, Diagnostic> {
        let mut settings = operator.settings();
        if let Some(Binding { input: Input::Source(index), .. }) = find(&inputs, Slot::Reward) {
            match self.source(index)?.kind {
                SourceKind::Reward { ref reward } => settings.insert("reward".to_string(), reward.settings()),
                _ => return Err(Diagnostic::internal("unroll: a reward is no reward")),
            };
        }
        if let Some(date) = self.date
            && operator.converses()
        {
            settings.insert("date".to_string(), json!(date.to_string()));
        }
        if let Some(variables) = &self.variables
            && operator.converses()
        {
            settings.insert("chat_template_kwargs".to_string(), variables.clone());
        }
        let after = self.guards.iter().filter(|(guarded, _)| iteration.is_some_and(|t| t == guarded + 1)).map(|(_, task)| *task).collect();
        let own = node.node.operator.precision().map(|own| (own, part.is_empty()));
        let precision = precision::of_task(self.precision, own, &operator, self.sources, &inputs)?;
        if precision != Precision::F32 {
            settings.insert("precision".to_string(), json!(precision));
        }
        self.tasks.push(Task {
            name: format!("{}{part}", node.name.value),
            iteration,
            operator,
            settings,
            inputs,
            after,
            precision,
            resources: node.node.resources.clone(),
            line: node.name.span.line,
        });
        Ok(self.tasks.len() - 1)
    }

    /// The filled slots of these links in an iteration. A link to the previous iteration stays
    /// empty at t = 1 if it starts from `none`.
    fn bindings<'l>(&self, links: impl IntoIterator<Item = &'l Link>, t: Option<u32>) -> Result<Vec<Binding>, Diagnostic> {
        let mut bindings = Vec::new();
        for Link { slot, name, target, .. } in links {
            if let Some(input) = self.input(*target, t)? {
                let name = if [Slot::Tables, Slot::Inputs].contains(slot) { name.clone() } else { self.name(input)? };
                bindings.push(Binding { slot: *slot, name, input });
            }
        }
        Ok(bindings)
    }

    /// The input behind a target in an iteration; none for a start from `none`.
    fn input(&self, target: Target, t: Option<u32>) -> Result<Option<Input>, Diagnostic> {
        let task = |tasks: &[Option<usize>], index: usize| match tasks.get(index) {
            Some(Some(task)) => Ok(Some(Input::Task(*task))),
            _ => Err(Diagnostic::internal("unroll: an input comes before its task")),
        };
        match target {
            Target::Source(index) => Ok(Some(Input::Source(index))),
            Target::Once(index) => task(&self.once, index),
            Target::Same(index) => task(&self.same, index),
            Target::Last(index) if t == Some(1) => match self.scope.start(index) {
                Some(start) => self.input(start, t),
                None => Ok(None),
            },
            Target::Last(index) => task(&self.last, index),
        }
    }

    fn source(&self, index: usize) -> Result<&Source, Diagnostic> {
        self.sources.get(index).ok_or_else(|| Diagnostic::internal("unroll: an input is missing"))
    }

    fn task(&self, index: usize) -> Result<&Task, Diagnostic> {
        self.tasks.get(index).ok_or_else(|| Diagnostic::internal("unroll: a task is missing"))
    }

    fn name(&self, input: Input) -> Result<String, Diagnostic> {
        match input {
            Input::Source(index) => Ok(self.source(index)?.name.clone()),
            Input::Task(index) => Ok(self.task(index)?.name.clone()),
        }
    }

    /// The output of a task as an input.
    fn task_binding(&self, slot: Slot, task: usize) -> Result<Binding, Diagnostic> {
        let input = Input::Task(task);
        Ok(Binding { slot, name: self.name(input)?, input })
    }

    /// The inputs of the task behind an input; none for a source.
    fn inputs_of(&self, input: Input) -> Result<&[Binding], Diagnostic> {
        match input {
            Input::Task(index) => Ok(&self.task(index)?.inputs),
            Input::Source(_) => Ok(&[]),
        }
    }
}

/// The first input in a slot.
fn find(inputs: &[Binding], slot: Slot) -> Option<Binding> {
    inputs.iter().find(|input| input.slot == slot).cloned()
}

/// The first input in a slot filled in every checked pipeline.
fn required(inputs: &[Binding], slot: Slot) -> Result<Binding, Diagnostic> {
    find(inputs, slot).ok_or_else(|| Diagnostic::internal(format!("unroll: nothing fills the slot {slot}")))
}

/// The inputs in some slots, in order.
fn only(inputs: &[Binding], chosen: impl Fn(Slot) -> bool) -> Vec<Binding> {
    inputs.iter().filter(|input| chosen(input.slot)).cloned().collect()
}
