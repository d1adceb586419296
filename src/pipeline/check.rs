//! Every node's inputs, resolved and of the right kind, and an order to make them in.
//!
//! Knows one iteration; how many there are is for [`super::unroll`].

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::error::Fault;
use super::position::{At, Name, Span};
use super::relations::relations;
use super::scope::{Scope, Target, Where};
use super::slot::Slot;
use super::spec::Spec;
use super::spec::engine::Engine;
use super::spec::input::{Input, RewardSource};
use super::spec::operator::{Node, Operator, Output};
use super::spec::query::Query;
use super::spec::sampling::Generate;
use super::spec::select::{Select, Strategy};
use super::spec::training::{Initialize, Sft};
use crate::did_you_mean::nearest;

/// One input of a node: the slot, what the node calls it, and where it leads.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) slot: Slot,
    pub(super) name: String,
    pub(super) target: Target,
    span: Span,
}

/// A node with its inputs found.
pub(super) struct Linked<'a> {
    pub(super) name: &'a Name,
    pub(super) node: &'a Node,
    pub(super) links: Vec<Link>,
}

/// The nodes that run once or those of `iterate`, with every input found; as in the file.
pub(super) fn link<'a>(spec: &Spec, scope: &Scope, nodes: &'a IndexMap<Name, Node>, place: Where) -> Result<Vec<Linked<'a>>, Fault> {
    let linked = |(name, node): (&'a Name, &'a Node)| Ok(Linked { name, node, links: links(spec, scope, name, node, place)? });
    nodes.iter().map(linked).collect()
}

fn links(spec: &Spec, scope: &Scope, name: &Name, node: &Node, place: Where) -> Result<Vec<Link>, Fault> {
    let mut links = Vec::new();
    for (slot, input, expected) in node.operator.slots() {
        // What an evaluation compares with is made once, so that it is the same in every iteration.
        let fixed = matches!(node.operator, Operator::Evaluate(_)) && [Slot::Baseline, Slot::Prompts, Slot::Reward].contains(&slot);
        let place = if fixed { Where::Outside } else { place };
        let target = match (&node.operator, slot) {
            // Rewards that the user has are ranked as a pool's are.
            (Operator::Select(_), Slot::Pool) => {
                let own = |fault| scope.resolve(input, Output::Table, place).map_err(|_| fault);
                scope.resolve(input, expected, place).or_else(own)?
            }
            _ => scope.resolve(input, expected, place)?,
        };
        let optional =
            matches!((&node.operator, slot), (Operator::Select(_), Slot::Pool | Slot::Previous) | (Operator::Merge(_), Slot::Carried));
        begins(scope, target, optional, &input.value, input.span)?;
        links.push(Link { slot, name: input.value.clone(), target, span: input.span });
    }
    match &node.operator {
        Operator::Select(select) => ranked(select, name.span)?,
        Operator::Generate(generate) => served(generate, &links)?,
        Operator::Sft(Sft { initialize: Initialize::Random, lora: Some(_), .. }) => {
            let problem = "an adapter stands on weights that are kept, but with `initialize: random` there are none; leave out `lora`";
            return Err(Fault::at(name.span, problem));
        }
        Operator::Sql(sql) => tables(scope, &sql.query, None, &sql.tables, place, &mut links)?,
        Operator::Score(score) => reward_inputs(spec, scope, &score.reward, place, &mut Vec::new(), &mut links)?,
        Operator::Evaluate(evaluate) => reward_inputs(spec, scope, &evaluate.reward, Where::Outside, &mut Vec::new(), &mut links)?,
        _ => {}
    }
    Ok(links)
}

/// A selection needs what its strategy looks at.
fn ranked(select: &Select, span: Span) -> Result<(), Fault> {
    let problem = match (&select.strategy, &select.pool, &select.previous) {
        (Strategy::All, ..) => return Ok(()),
        (_, None, _) => "to select some of the prompts, \"pool\" is needed: the pool whose rewards rank the prompts, usually pool[t-1]",
        (Strategy::RewardGain, _, None) => "to select by reward_gain, \"previous\" is needed: the last selection, usually selection[t-1]",
        (Strategy::RewardGain, ..) | (_, _, None) => return Ok(()),
        _ => "\"previous\" is read by the strategy reward_gain only; leave it out",
    };
    Err(Fault::at(span, problem))
}

/// A server keeps answering with the model it has loaded, so a policy that the pipeline makes needs a command that loads it.
fn served(generate: &Generate, links: &[Link]) -> Result<(), Fault> {
    let made = links.iter().find(|link| link.slot == Slot::Policy && !matches!(link.target, Target::Source(_)));
    match (&generate.engine, made) {
        (Some(Engine { serve: None, model, .. }), Some(policy)) => Err(Fault::at(
            policy.span,
            format!(
                "the policy \"{}\" is made by this pipeline, and the server of \"{}\" would go on answering with an older one; \
                 add to engine the command that has it load {{model}}: `serve: \"… {{model}}\"`",
                policy.name, model.value
            ),
        )),
        _ => Ok(()),
    }
}

/// What reads the last iteration needs something to read in the first, unless the slot may be empty.
fn begins(scope: &Scope, target: Target, optional: bool, name: &str, span: Span) -> Result<(), Fault> {
    match target {
        Target::Last(index) if !optional && scope.start(index).is_none() => {
            Err(Fault::at(span, format!("\"{name}\" is needed at t = 1 too, where start says none; let it start from a name")))
        }
        _ => Ok(()),
    }
}

/// What a reward reads, besides the responses and prompts that it is always given: the tables of its queries, and the rewards that it
/// names, with what those read. `above` are the rewards that name this one.
fn reward_inputs<'a>(
    spec: &'a Spec,
    scope: &Scope,
    reward: &'a Name,
    place: Where,
    above: &mut Vec<&'a str>,
    links: &mut Vec<Link>,
) -> Result<(), Fault> {
    let Some(Input::Reward { reward: spelled }) = spec.inputs.get(reward.value.as_str()) else { return Ok(()) };
    if let Some(begin) = above.iter().position(|name| *name == reward.value) {
        let round: Vec<&str> = above.iter().skip(begin).copied().chain([reward.value.as_str()]).collect();
        return Err(Fault::at(reward.span, format!("these rewards are made of each other: {}", round.join(" names "))));
    }
    above.push(&reward.value);
    for source in spelled.sources() {
        match source {
            RewardSource::Sql(query) => tables(scope, query, Some(&reward.value), &IndexMap::new(), place, links)?,
            RewardSource::Named(name) => {
                let target = scope.resolve(name, Output::Reward, Where::Outside)?;
                if !links.iter().any(|link| link.slot == Slot::Rewards && link.name == name.value) {
                    links.push(Link { slot: Slot::Rewards, name: name.value.clone(), target, span: name.span });
                }
                reward_inputs(spec, scope, name, place, above, links)?;
            }
            RewardSource::Model(_) | RewardSource::Http(_) => {}
        }
    }
    above.pop();
    Ok(())
}

/// The tables that a query reads, by `aliases` or else by name. A `reward`'s query is given `responses` and `prompts`.
fn tables(
    scope: &Scope,
    query: &Query,
    reward: Option<&str>,
    aliases: &IndexMap<String, Name>,
    place: Where,
    links: &mut Vec<Link>,
) -> Result<(), Fault> {
    let whose = match (reward, query.path()) {
        (Some(reward), _) => format!("the query of \"{reward}\""),
        (None, Some(path)) => format!("the query {}", path.display()),
        (None, None) => "the query".to_string(),
    };
    let read = relations(&query.text).map_err(|error| Fault::at(query.span, format!("{whose} {error}")))?;
    if let Some((alias, name)) = aliases.iter().find(|(alias, _)| !read.contains(*alias)) {
        let near = nearest(alias, read.iter().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
        return Err(Fault::at(name.span, format!("{whose} does not read \"{alias}\"{near}")));
    }
    let given: BTreeSet<&str> = if reward.is_some() { ["responses", "prompts"].into() } else { BTreeSet::new() };
    for relation in read.iter().filter(|relation| !given.contains(relation.as_str())) {
        let by_name = At { value: relation.clone(), span: query.span };
        let (name, aliased) = aliases.get(relation).map_or((&by_name, false), |name| (name, true));
        let target = scope.table(name, place).map_err(|fault| match aliased {
            true => fault,
            false => Fault { message: format!("{whose} reads \"{relation}\": {}", fault.message), ..fault },
        })?;
        begins(scope, target, false, &name.value, name.span)?;
        // Several queries of one reward may read the same table.
        if !links.iter().any(|link| link.slot == Slot::Tables && link.name == *relation) {
            links.push(Link { slot: Slot::Tables, name: relation.clone(), target, span: name.span });
        }
    }
    Ok(())
}

/// An order in which each node comes after those it reads in the same iteration; otherwise as in the file.
///
/// `needs` tells the node that a link waits for, if any.
pub(super) fn order(nodes: &[Linked<'_>], needs: impl Fn(&Link) -> Option<usize>) -> Result<Vec<usize>, Fault> {
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

/// The cycle that a node waits for: each node still waits for another, so following them must come round.
fn cycle(nodes: &[Linked<'_>], waits_for: &[BTreeSet<usize>], stuck: usize, needs: impl Fn(&Link) -> Option<usize>) -> Fault {
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
    link.map_or_else(|| Fault::nowhere(message.clone()), |link| Fault::at(link.span, message.clone()))
}
