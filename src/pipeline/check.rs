//! Resolves the inputs of every node, checks their kinds, and orders the nodes.
//!
//! Knows one iteration, not their number ([`super::unroll`]).

mod benchmark;
mod link;
mod server;
mod train;

use std::collections::BTreeSet;

use indexmap::IndexMap;

use self::benchmark::check_benchmark;
use self::server::{check_baseline_server, check_server};
use self::train::check_train;
use super::error::Diagnostic;
use super::position::{At, Name, Span};
use super::relations::relations;
use super::scope::{Scope, Section, Target};
use super::slot::Slot;
use super::spec::Spec;
use super::spec::command::Command;
use super::spec::generate::Generate;
use super::spec::input::{Input, RewardSource};
use super::spec::operator::{Node, Operator, Output};
use super::spec::query::Query;
use super::spec::resources::{Device, Resources};
use super::spec::select::{Select, Strategy};
use super::spec::sft::{Initialize, Sft};
use crate::did_you_mean::nearest;
pub(super) use link::Link;

/// A node with its inputs.
pub(super) struct ResolvedNode<'a> {
    pub(super) name: &'a Name,
    pub(super) node: &'a Node,
    pub(super) links: Vec<Link>,
}

/// The nodes of one section with their inputs, in the order of the file.
pub(super) fn resolve_nodes<'a>(
    spec: &Spec,
    scope: &Scope,
    nodes: &'a IndexMap<Name, Node>,
    section: Section,
) -> Result<Vec<ResolvedNode<'a>>, Diagnostic> {
    let resolve = |(name, node): (&'a Name, &'a Node)| Ok(ResolvedNode { name, node, links: links(spec, scope, name, node, section)? });
    nodes.iter().map(resolve).collect()
}

fn links(spec: &Spec, scope: &Scope, name: &Name, node: &Node, section: Section) -> Result<Vec<Link>, Diagnostic> {
    let mut links = Vec::new();
    for (slot, input, expected) in node.operator.slots() {
        // A baseline of an evaluation is made once and is the same in every iteration, unless it is
        // of the last one.
        let is_last = slot == Slot::Baseline && input.value.ends_with("[t-1]");
        let fixed = match node.operator {
            Operator::Evaluate(_) => [Slot::Baseline, Slot::Prompts, Slot::Reward].contains(&slot) && !is_last,
            Operator::Benchmark(_) => slot != Slot::Policy,
            _ => false,
        };
        let section = if fixed { Section::Nodes } else { section };
        let target = match (&node.operator, slot) {
            // A table of rewards from the user is ranked like a pool.
            (Operator::Select(_), Slot::Pool) => {
                let own = |diagnostic| scope.resolve(input, Output::Table, section).map_err(|_| diagnostic);
                scope.resolve(input, expected, section).or_else(own)?
            }
            // A table of texts is compared with like a model.
            (Operator::Evaluate(_), Slot::Baseline) => {
                let own = |diagnostic| scope.resolve(input, Output::Table, section).map_err(|_| diagnostic);
                scope.resolve(input, expected, section).or_else(own)?
            }
            _ => scope.resolve(input, expected, section)?,
        };
        let optional =
            matches!((&node.operator, slot), (Operator::Select(_), Slot::Pool | Slot::Previous) | (Operator::Merge(_), Slot::Carried));
        check_start(scope, target, optional, &input.value, input.span)?;
        links.push(Link { slot, name: input.value.clone(), target, span: input.span });
    }
    check_devices(&node.resources, name.span)?;
    match &node.operator {
        Operator::Select(select) => check_selection(select, name.span)?,
        Operator::Generate(generate) => {
            check_server(generate.engine.as_ref(), &links)?;
            check_lengths(generate.min_new_tokens, generate.max_new_tokens, name.span)?;
            check_indices(generate, name.span)?;
        }
        Operator::Sft(Sft { initialize: Initialize::Random, lora: Some(_), .. }) => {
            let problem = "an adapter stands on weights that are kept, but with `initialize: random` there are none; leave out `lora`";
            return Err(Diagnostic::at(name.span, problem));
        }
        Operator::Train(train) => check_train(train, &node.resources, name.span)?,
        Operator::Sql(sql) => tables(scope, &sql.query, None, &sql.tables, section, &mut links)?,
        Operator::Command(command) => command_inputs(scope, command, section, &mut links)?,
        Operator::Score(score) => reward_inputs(spec, scope, &score.reward, section, &mut Vec::new(), &mut links)?,
        Operator::Evaluate(evaluate) => {
            check_lengths(evaluate.min_new_tokens, evaluate.max_new_tokens, name.span)?;
            check_server(evaluate.engine.as_ref(), &links)?;
            check_baseline_server(spec, evaluate.engine.as_ref(), &links)?;
            reward_inputs(spec, scope, &evaluate.reward, Section::Nodes, &mut Vec::new(), &mut links)?;
        }
        Operator::Benchmark(benchmark) => {
            check_benchmark(benchmark, name.span)?;
            for (_, task) in benchmark.sorted() {
                for (_, reward) in task.reward_metrics() {
                    reward_inputs(spec, scope, reward, Section::Nodes, &mut Vec::new(), &mut links)?;
                }
            }
        }
        _ => {}
    }
    Ok(links)
}

/// Checks that `every` is of nodes of iterate, and that no node reads an output that only some
/// iterations have.
pub(super) fn check_every(once: &[ResolvedNode], inner: &[ResolvedNode]) -> Result<(), Diagnostic> {
    let rare = |node: &&ResolvedNode| node.node.operator.every() > 1;
    if let Some(node) = once.iter().find(rare) {
        let problem = "`every` counts iterations, and a node outside iterate has none; leave it out";
        return Err(Diagnostic::at(node.name.span, problem));
    }
    for link in inner.iter().flat_map(|node| &node.links) {
        let (Target::Same(index) | Target::Last(index)) = link.target else { continue };
        if let Some(read) = inner.get(index).filter(rare) {
            let every = read.node.operator.every();
            let problem = format!(
                "\"{}\" is not made in every iteration (`every: {every}`), and this node reads it in each; leave out `every`",
                read.name.value
            );
            return Err(Diagnostic::at(link.span, problem));
        }
    }
    Ok(())
}

/// Checks that a node has one device or a list of them.
fn check_devices(resources: &Resources, span: Span) -> Result<(), Diagnostic> {
    if resources.devices.is_some() && resources.device != Device::Auto {
        return Err(Diagnostic::at(span, "`device` and `devices` both say where the model is computed; leave out `device`"));
    }
    Ok(())
}

/// Checks the inputs of a selection strategy.
fn check_selection(select: &Select, span: Span) -> Result<(), Diagnostic> {
    let problem = match (&select.strategy, &select.pool, &select.previous) {
        (Strategy::All, ..) => return Ok(()),
        (_, None, _) => "to select some of the prompts, \"pool\" is needed: the pool whose rewards rank the prompts, usually pool[t-1]",
        (Strategy::RewardGain, _, None) => "to select by reward_gain, \"previous\" is needed: the last selection, usually selection[t-1]",
        (Strategy::RewardGain | Strategy::Posterior(_), ..) | (_, _, None) => return Ok(()),
        _ => "\"previous\" is read by the strategies reward_gain and posterior only; leave it out",
    };
    Err(Diagnostic::at(span, problem))
}

/// Checks that the shortest response is not longer than the longest.
fn check_lengths(shortest: u32, longest: u32, span: Span) -> Result<(), Diagnostic> {
    if shortest > longest {
        return Err(Diagnostic::at(span, format!("expected min_new_tokens of at most max_new_tokens ({longest}), found {shortest}")));
    }
    Ok(())
}

/// Checks that response indices are in the range of their column.
fn check_indices(generate: &Generate, span: Span) -> Result<(), Diagnostic> {
    let end = u64::from(generate.first_index) + u64::from(generate.responses_per_prompt.count());
    if end > i32::MAX as u64 {
        return Err(Diagnostic::at(span, format!("expected first_index + responses_per_prompt of at most {}, found {end}", i32::MAX)));
    }
    Ok(())
}

/// Checks that a link to the previous iteration has an input at t = 1, unless the slot is optional.
fn check_start(scope: &Scope, target: Target, optional: bool, name: &str, span: Span) -> Result<(), Diagnostic> {
    match target {
        Target::Last(index) if !optional && scope.start(index).is_none() => {
            Err(Diagnostic::at(span, format!("\"{name}\" is needed at t = 1 too, where start says none; let it start from a name")))
        }
        _ => Ok(()),
    }
}

/// Adds the inputs of a reward besides responses and prompts: the tables of its queries, and the
/// rewards in its sum with their own inputs. `above` are the rewards with this one in their sum.
fn reward_inputs<'a>(
    spec: &'a Spec,
    scope: &Scope,
    reward: &'a Name,
    section: Section,
    above: &mut Vec<&'a str>,
    links: &mut Vec<Link>,
) -> Result<(), Diagnostic> {
    let Some(Input::Reward { reward: spelled }) = spec.inputs.get(reward.value.as_str()) else { return Ok(()) };
    if let Some(begin) = above.iter().position(|name| *name == reward.value) {
        let round: Vec<&str> = above.iter().skip(begin).copied().chain([reward.value.as_str()]).collect();
        return Err(Diagnostic::at(reward.span, format!("these rewards are made of each other: {}", round.join(" names "))));
    }
    above.push(&reward.value);
    for source in spelled.sources() {
        match source {
            RewardSource::Sql(query) => tables(scope, query, Some(&reward.value), &IndexMap::new(), section, links)?,
            RewardSource::Named(name) => {
                let target = scope.resolve(name, Output::Reward, Section::Nodes)?;
                if !links.iter().any(|link| link.slot == Slot::Rewards && link.name == name.value) {
                    links.push(Link { slot: Slot::Rewards, name: name.value.clone(), target, span: name.span });
                }
                reward_inputs(spec, scope, name, section, above, links)?;
            }
            RewardSource::Model(_) | RewardSource::Http(_) | RewardSource::Judge(_) | RewardSource::Process(_) => {}
        }
    }
    above.pop();
    Ok(())
}

/// Adds the inputs of a command. An input that starts from `none` is left out at t = 1.
fn command_inputs(scope: &Scope, command: &Command, section: Section, links: &mut Vec<Link>) -> Result<(), Diagnostic> {
    for (name, input) in &command.inputs {
        let valid = name.value.starts_with(|c: char| c.is_ascii_lowercase())
            && name.value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !valid {
            let expected = "expected a name of lower-case letters, digits and \"_\" that begins with a letter";
            return Err(Diagnostic::at(name.span, format!("{expected}, found \"{}\"", name.value)));
        }
        let target = scope.table_or_model(input, section)?;
        links.push(Link { slot: Slot::Inputs, name: name.value.clone(), target, span: input.span });
    }
    Ok(())
}

/// Adds the tables of a query, by `aliases` or else by name. The query of a `reward` always has
/// `responses` and `prompts`.
fn tables(
    scope: &Scope,
    query: &Query,
    reward: Option<&str>,
    aliases: &IndexMap<String, Name>,
    section: Section,
    links: &mut Vec<Link>,
) -> Result<(), Diagnostic> {
    let whose = match (reward, query.path()) {
        (Some(reward), _) => format!("the query of \"{reward}\""),
        (None, Some(path)) => format!("the query {}", path.display()),
        (None, None) => "the query".to_string(),
    };
    let read = relations(&query.text).map_err(|error| Diagnostic::at(query.span, format!("{whose} {error}")))?;
    if let Some((alias, name)) = aliases.iter().find(|(alias, _)| !read.contains(*alias)) {
        let near = nearest(alias, read.iter().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
        return Err(Diagnostic::at(name.span, format!("{whose} does not read \"{alias}\"{near}")));
    }
    let given: BTreeSet<&str> = if reward.is_some() { ["responses", "prompts"].into() } else { BTreeSet::new() };
    for relation in read.iter().filter(|relation| !given.contains(relation.as_str())) {
        let by_name = At { value: relation.clone(), span: query.span };
        let (name, aliased) = aliases.get(relation).map_or((&by_name, false), |name| (name, true));
        let in_query = |error: Diagnostic| {
            if aliased { error } else { error.prefixed(&format!("{whose} reads \"{relation}\"")) }
        };
        let target = scope.table(name, section).map_err(in_query)?;
        check_start(scope, target, false, &name.value, name.span)?;
        // Several queries of one reward may read the same table.
        if !links.iter().any(|link| link.slot == Slot::Tables && link.name == *relation) {
            links.push(Link { slot: Slot::Tables, name: relation.clone(), target, span: name.span });
        }
    }
    Ok(())
}

/// An order with each node after its inputs of the same iteration; otherwise the order of the file.
///
/// `needs` returns the node behind a link, if the link has to wait for one.
pub(super) fn order(nodes: &[ResolvedNode<'_>], needs: impl Fn(&Link) -> Option<usize>) -> Result<Vec<usize>, Diagnostic> {
    let mut waits_for: Vec<BTreeSet<usize>> = nodes.iter().map(|node| node.links.iter().filter_map(&needs).collect()).collect();
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|index| waits_for.get(*index).is_some_and(BTreeSet::is_empty)).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for (index, waits) in waits_for.iter_mut().enumerate() {
            if waits.remove(&next) && waits.is_empty() {
                ready.insert(index);
            }
        }
    }
    match waits_for.iter().position(|waits| !waits.is_empty()) {
        None => Ok(order),
        Some(stuck) => Err(cycle(nodes, &waits_for, stuck, needs)),
    }
}

/// The error for a cycle. Every waiting node waits for another one, so a path along them is a
/// cycle.
fn cycle(nodes: &[ResolvedNode<'_>], waits_for: &[BTreeSet<usize>], stuck: usize, needs: impl Fn(&Link) -> Option<usize>) -> Diagnostic {
    let mut path = vec![stuck];
    let next = |index: usize| waits_for.get(index).and_then(|waits| waits.first().copied());
    while let Some(step) = path.last().copied().and_then(next) {
        if let Some(begin) = path.iter().position(|index| *index == step) {
            path.drain(..begin);
            path.push(step);
            break;
        }
        path.push(step);
    }
    let names: Vec<&str> = path.iter().filter_map(|index| nodes.get(*index)).map(|node| node.name.value.as_str()).collect();
    let first = path.first().and_then(|index| nodes.get(*index));
    let link = first.and_then(|node| node.links.iter().find(|link| needs(link) == path.get(1).copied()));
    let message = format!("these nodes wait for each other: {}; read one of them by [t-1], or not at all", names.join(" reads "));
    link.map_or_else(|| Diagnostic::nowhere(message.clone()), |link| Diagnostic::at(link.span, message.clone()))
}
