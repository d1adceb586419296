//! From the checked file to the graph: iterations written out, and nodes that are several tasks taken apart.
//!
//! What a task reads beyond the names in the file is found here, by lineage:
//!
//! | task | hidden slots |
//! |---|---|
//! | score | `prompts` of its responses; `tables` of the reward's queries, `rewards` that it names, the `policy` if it asks a server |
//! | merge | `responses` that the fresh rewards are of |
//! | `<train>_pairs` (reference) | `responses` that the pairs can be of: of every iteration whose responses the pool may still hold |
//! | train | the same `responses`; its `pairs` are `<train>_pairs` |
//! | both, on a table of preferences | `preferences` in the place of pairs and responses, which `<train>_pairs` tokenizes as `from` does |
//! | `<reward_model>_ranking` (rank) | `model`, the reward model; the same `preferences` |
//! | evaluate | `responses`, `rewards`, `baseline_responses`, `baseline_rewards`, each made by a task of its own |
//!
//! Knows which task feeds which, not how any of them runs.

use std::path::Path;

use chrono::NaiveDate;
use serde_json::json;

use super::check::{Link, Linked, link, order};
use super::error::Fault;
use super::files;
use super::graph::{Binding, Graph, Input, RewardSource, Source, SourceKind, Task};
use super::position::At;
use super::scope::{Scope, Target, Where};
use super::slot::Slot;
use super::spec::Spec;
use super::spec::operator::{Operator, Output};
use super::spec::relational::Score;
use super::spec::sampling::{Evaluate, Generate};
use super::spec::select::{Select, Strategy};
use super::spec::training::Rank;

/// The most iterations; a run of more is a mistake.
const MOST_ITERATIONS: u32 = 1_000;

/// The most tasks, for the same reason.
const MOST_TASKS: usize = 20_000;

/// Checks a pipeline file and writes out its tasks.
pub(super) fn unroll(mut spec: Spec, folder: &Path) -> Result<Graph, Fault> {
    let iterations = iterations(&spec)?;
    run_name(&spec.name)?;
    let date = date(&spec)?;
    spec.tracking.check()?;
    let sources = files::find(&mut spec, folder)?;
    let scope = Scope::of(&spec)?;
    let no_nodes = indexmap::IndexMap::new();
    let inner_nodes = spec.iterate.as_ref().map_or(&no_nodes, |iterate| &iterate.nodes);
    let tasks = spec.nodes.len().saturating_add(inner_nodes.len().saturating_mul(iterations as usize));
    if tasks == 0 || tasks > MOST_TASKS {
        return Err(Fault::nowhere(format!("expected 1 to {MOST_TASKS} nodes in `nodes` and in all iterations, found {tasks}")));
    }
    let once = link(&spec, &scope, &spec.nodes, Where::Outside)?;
    let inner = link(&spec, &scope, inner_nodes, Where::Inside)?;
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
        tasks: Vec::new(),
        once: vec![0; once.len()],
        same: Vec::new(),
        last: Vec::new(),
    };
    for index in once_order {
        let Some(node) = once.get(index) else { continue };
        let baseline = unrolling.baseline(node);
        let made = unrolling.node(node, None, baseline);
        if let Some(place) = unrolling.once.get_mut(index) {
            *place = made;
        }
    }
    let baselines: Vec<_> = inner.iter().map(|node| unrolling.baseline(node)).collect();
    for t in 1..=iterations {
        unrolling.last = std::mem::replace(&mut unrolling.same, vec![0; inner.len()]);
        for index in &inner_order {
            let Some(node) = inner.get(*index) else { continue };
            let made = unrolling.node(node, Some(t), baselines.get(*index).copied().flatten());
            if let Some(place) = unrolling.same.get_mut(*index) {
                *place = made;
            }
        }
    }
    let tasks = unrolling.tasks;
    Ok(Graph { name: spec.name.value.clone(), seed: spec.seed, params: spec.params.clone(), iterations, sources, tasks, spec })
}

/// N of `1..N`; 0 without `iterate`.
fn iterations(spec: &Spec) -> Result<u32, Fault> {
    let Some(iterate) = &spec.iterate else { return Ok(0) };
    match iterate.t.value.strip_prefix("1..").map(str::parse::<u32>) {
        Some(Ok(last)) if (1..=MOST_ITERATIONS).contains(&last) => Ok(last),
        _ => {
            let found = &iterate.t.value;
            Err(Fault::at(iterate.t.span, format!("expected the iterations as 1..N with N from 1 to {MOST_ITERATIONS}, found \"{found}\"")))
        }
    }
}

/// The date, if one is given: a day that the calendar has.
fn date(spec: &Spec) -> Result<Option<NaiveDate>, Fault> {
    let Some(At { value, span }) = &spec.date else { return Ok(None) };
    // The length rules out years of more digits and days without their zero, which would make two spellings of one date.
    match value.parse::<NaiveDate>() {
        Ok(date) if value.len() == 10 => Ok(Some(date)),
        _ => Err(Fault::at(*span, format!("expected a date such as 2026-11-23, found \"{value}\""))),
    }
}

/// The run's name is a folder's name, and must not lead out of its place.
fn run_name(name: &At<String>) -> Result<(), Fault> {
    let text = &name.value;
    let valid = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 100
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c));
    if valid {
        return Ok(());
    }
    let expected = "expected a name of at most 100 letters, digits, \"-\", \"_\" and \".\" that begins with a letter or digit";
    Err(Fault::at(name.span, format!("{expected}, found \"{text}\"")))
}

/// The graph so far.
struct Unrolling<'a> {
    sources: &'a [Source],
    scope: &'a Scope,
    /// The date that chat templates write.
    date: Option<NaiveDate>,
    tasks: Vec<Task>,
    /// The task of each node of `nodes`.
    once: Vec<usize>,
    /// The task of each node of `iterate`, in this iteration and in the last.
    same: Vec<usize>,
    last: Vec<usize>,
}

/// The tasks that an evaluation compares with: the baseline's responses and their rewards.
type Baseline = (usize, usize);

impl Unrolling<'_> {
    /// Adds what a node does in an iteration; gives the task that makes what the node is named for.
    fn node(&mut self, node: &Linked<'_>, t: Option<u32>, baseline: Option<Baseline>) -> usize {
        let mut operator = node.node.operator.clone();
        let mut inputs = self.slots(node, t);
        match &mut operator {
            Operator::Select(select) => {
                if !inputs.iter().any(|slot| slot.slot == Slot::Pool) && select.pool.is_some() {
                    select.strategy = Strategy::All;
                }
                // What makes no difference is set to one value, so that equal selections have equal fingerprints.
                if select.strategy == Strategy::All {
                    *select = Select { strategy: Strategy::All, prompts: select.prompts.clone(), ..Select::default() };
                    inputs.retain(|slot| slot.slot == Slot::Prompts);
                }
            }
            Operator::Score(score) => {
                let policy = self.slot(&inputs, Slot::Responses).and_then(|responses| self.policy(&inputs, responses.input));
                inputs.extend(policy);
                let prompts =
                    self.slot(&inputs, Slot::Responses).and_then(|responses| self.slot(&self.inputs_of(responses.input), Slot::Prompts));
                inputs.extend(prompts.filter(|_| score.prompts.is_none()));
            }
            Operator::Merge(_) => {
                let fresh = self.slot(&inputs, Slot::Fresh);
                inputs.extend(fresh.and_then(|fresh| self.slot(&self.inputs_of(fresh.input), Slot::Responses)));
            }
            Operator::Train(_) => {
                for slot in inputs.iter_mut().filter(|slot| slot.slot == Slot::Pairs && self.is_own_table(slot.input)) {
                    slot.slot = Slot::Preferences;
                }
                let texts = match self.slot(&inputs, Slot::Pairs) {
                    Some(pairs) => self.responses(pairs.input),
                    None => inputs.iter().filter(|slot| [Slot::From, Slot::Preferences].contains(&slot.slot)).cloned().collect(),
                };
                let mut referenced: Vec<Binding> =
                    inputs.iter().filter(|slot| [Slot::Pairs, Slot::Reference].contains(&slot.slot)).cloned().collect();
                referenced.extend(texts.iter().cloned());
                let pairs = self.add(node, "_pairs", t, Operator::Reference, referenced);
                inputs.retain(|slot| slot.slot == Slot::From);
                inputs.push(self.made(Slot::Pairs, pairs));
                inputs.extend(texts.into_iter().filter(|slot| slot.slot != Slot::From));
            }
            Operator::RewardModel(settings) if settings.has_held_out() => {
                let rank = Rank { held_out: settings.held_out.clone(), max_tokens: settings.max_tokens };
                let mut ranked: Vec<Binding> = inputs.iter().filter(|slot| slot.slot != Slot::From).cloned().collect();
                let model = self.add(node, "", t, operator, inputs);
                ranked.push(self.made(Slot::Model, model));
                self.add(node, "_ranking", t, Operator::Rank(rank), ranked);
                return model;
            }
            Operator::Evaluate(evaluate) => return self.evaluation(node, evaluate, inputs, t, baseline),
            _ => {}
        }
        self.add(node, "", t, operator, inputs)
    }

    /// Adds the baseline's part of an evaluation, which is the same in every iteration.
    fn baseline(&mut self, node: &Linked<'_>) -> Option<Baseline> {
        let Operator::Evaluate(evaluate) = &node.node.operator else { return None };
        let inputs = self.slots(node, None);
        Some(self.sampled(node, "_baseline", evaluate, &inputs, Slot::Baseline, None))
    }

    /// Adds an evaluation's part of one iteration.
    fn evaluation(
        &mut self,
        node: &Linked<'_>,
        evaluate: &Evaluate,
        inputs: Vec<Binding>,
        t: Option<u32>,
        baseline: Option<Baseline>,
    ) -> usize {
        let (responses, rewards) = self.sampled(node, "", evaluate, &inputs, Slot::Policy, t);
        let mut slots = vec![self.made(Slot::Responses, responses), self.made(Slot::Rewards, rewards)];
        if let Some((responses, rewards)) = baseline {
            slots.extend([self.made(Slot::BaselineResponses, responses), self.made(Slot::BaselineRewards, rewards)]);
        }
        let initial = self.slot(&inputs, Slot::Initial).or_else(|| {
            let policy = node.links.iter().find(|link| link.slot == Slot::Policy)?;
            let start = match policy.target {
                Target::Same(index) | Target::Last(index) => self.scope.start(index),
                _ => None,
            };
            let started = start.and_then(|target| self.fill(Slot::Initial, &policy.name, target, t));
            started.or_else(|| self.slot(&inputs, Slot::Baseline))
        });
        slots.extend(initial.map(|initial| Binding { slot: Slot::Initial, name: self.name(initial.input), ..initial }));
        self.add(node, "", t, Operator::Evaluate(evaluate.clone()), slots)
    }

    /// Adds responses of the model in slot `model` to all prompts of an evaluation, and their rewards.
    fn sampled(&mut self, node: &Linked<'_>, part: &str, evaluate: &Evaluate, inputs: &[Binding], model: Slot, t: Option<u32>) -> Baseline {
        let name = |slot: Slot| At { value: self.slot(inputs, slot).map_or(String::new(), |slot| slot.name), span: node.name.span };
        let generate = Generate {
            policy: name(model),
            prompts: name(Slot::Prompts),
            selection: None,
            responses_per_prompt: evaluate.responses_per_prompt,
            max_new_tokens: evaluate.max_new_tokens,
            max_prompt_tokens: evaluate.max_prompt_tokens,
            temperature: evaluate.temperature,
            top_p: evaluate.top_p,
            top_k: evaluate.top_k,
            engine: None,
        };
        let at = |value: String| At { value, span: node.name.span };
        let score = Score {
            responses: at(format!("{}{part}_responses", node.name.value)),
            reward: name(Slot::Reward),
            prompts: Some(name(Slot::Prompts)),
            non_finite: evaluate.non_finite,
        };
        let policy = self.slot(inputs, model).map(|slot| Binding { slot: Slot::Policy, ..slot });
        let prompts = self.slot(inputs, Slot::Prompts);
        let sampling = policy.into_iter().chain(prompts.clone()).collect();
        let responses = self.add(node, &format!("{part}_responses"), t, Operator::Generate(generate), sampling);
        let mut scoring = vec![self.made(Slot::Responses, responses)];
        scoring.extend(self.slot(inputs, Slot::Reward));
        scoring.extend(prompts);
        scoring.extend(self.policy(inputs, Input::Task(responses)));
        scoring.extend(inputs.iter().filter(|slot| [Slot::Tables, Slot::Rewards].contains(&slot.slot)).cloned());
        let rewards = self.add(node, &format!("{part}_rewards"), t, Operator::Score(score), scoring);
        (responses, rewards)
    }

    /// Adds a task named for the node and `part`, which runs after all before it.
    fn add(&mut self, node: &Linked<'_>, part: &str, iteration: Option<u32>, operator: Operator, inputs: Vec<Binding>) -> usize {
        let mut settings = operator.settings();
        let reward = self.slot(&inputs, Slot::Reward).map(|reward| reward.input);
        if let Some(Input::Source(index)) = reward
            && let Some(Source { kind: SourceKind::Reward { reward }, .. }) = self.sources.get(index)
        {
            settings.insert("reward".to_string(), reward.settings());
        }
        if let Some(date) = self.date.filter(|_| operator.converses()) {
            settings.insert("date".to_string(), json!(date.to_string()));
        }
        self.tasks.push(Task {
            name: format!("{}{part}", node.name.value),
            iteration,
            operator,
            settings,
            inputs,
            resources: node.node.resources.clone(),
            line: node.name.span.line,
        });
        self.tasks.len() - 1
    }

    /// The slots that the file fills, in an iteration. Those that read the last iteration are left out at t = 1 where start says none.
    fn slots(&self, node: &Linked<'_>, t: Option<u32>) -> Vec<Binding> {
        node.links.iter().filter_map(|Link { slot, name, target, .. }| self.fill(slot, name, *target, t)).collect()
    }

    fn fill(&self, slot: Slot, name: &str, target: Target, t: Option<u32>) -> Option<Binding> {
        let input = match target {
            Target::Source(index) => Input::Source(index),
            Target::Once(index) => Input::Task(*self.once.get(index)?),
            Target::Same(index) => Input::Task(*self.same.get(index)?),
            Target::Last(index) if t == Some(1) => return self.fill(slot, name, self.scope.start(index)?, t),
            Target::Last(index) => Input::Task(*self.last.get(index)?),
        };
        let name = if slot == Slot::Tables { name.to_string() } else { self.name(input) };
        Some(Binding { slot, name, input })
    }

    fn name(&self, input: Input) -> String {
        match input {
            Input::Source(index) => self.sources.get(index).map(|source| source.name.clone()),
            Input::Task(index) => self.tasks.get(index).map(|task| task.name.clone()),
        }
        .unwrap_or_default()
    }

    /// The policy that `responses` are of, for a score whose reward asks a server: it is sent texts in the policy's chat template.
    fn policy(&self, inputs: &[Binding], responses: Input) -> Option<Binding> {
        let asks_server = |slot: &Binding| match slot.input {
            Input::Source(index) if [Slot::Reward, Slot::Rewards].contains(&slot.slot) => {
                match self.sources.get(index).map(|source| &source.kind) {
                    Some(SourceKind::Reward { reward }) => reward.sources().any(|source| matches!(source, RewardSource::Http(_))),
                    _ => false,
                }
            }
            _ => false,
        };
        if inputs.iter().any(asks_server) { self.slot(&self.inputs_of(responses), Slot::Policy) } else { None }
    }

    fn made(&self, slot: Slot, task: usize) -> Binding {
        Binding { slot, name: self.name(Input::Task(task)), input: Input::Task(task) }
    }

    fn slot(&self, inputs: &[Binding], slot: Slot) -> Option<Binding> {
        inputs.iter().find(|input| input.slot == slot).cloned()
    }

    fn inputs_of(&self, input: Input) -> Vec<Binding> {
        match input {
            Input::Task(index) => self.tasks.get(index).map_or(Vec::new(), |task| task.inputs.clone()),
            Input::Source(_) => Vec::new(),
        }
    }

    /// Whether it is a table of the user's own, from outside or by a query.
    fn is_own_table(&self, input: Input) -> bool {
        match input {
            Input::Task(index) => self.tasks.get(index).is_some_and(|task| task.output() == Output::Table),
            Input::Source(_) => true,
        }
    }

    /// The tasks whose responses may be in these pairs or this pool, oldest first.
    fn responses(&self, pairs: Input) -> Vec<Binding> {
        let mut found = Vec::new();
        let mut next = self.slot(&self.inputs_of(pairs), Slot::Pool);
        while let Some(pool) = next {
            let inputs = self.inputs_of(pool.input);
            found.extend(self.slot(&inputs, Slot::Responses));
            next = self.slot(&inputs, Slot::Carried);
        }
        found.reverse();
        found
    }
}
