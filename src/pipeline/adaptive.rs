//! The short form of adaptive numbers of responses, written out as nodes.
//!
//! ```text
//! responses: generate { responses_per_prompt: { first: 2, then: 6, where: … }, selection: s, … }
//! rewards:   score { responses: responses, … }
//! pool:      merge { fresh: rewards, … }
//! ```
//! becomes
//! ```text
//! responses:             generate { responses_per_prompt: 2, … }
//! rewards:               score { responses: responses, … }
//! responses_2_pool:      merge { fresh: rewards }
//! responses_2_selection: select { pool: responses_2_pool, within: s, responses_per_prompt: 6, … }
//! responses_2:           generate { selection: responses_2_selection, responses_per_prompt: 6, first_index: 2, … }
//! rewards_2:             score { responses: responses_2, … }
//! pool:                  merge { fresh: [rewards, rewards_2], … }
//! ```
//! With more steps, `responses_3` and so on follow: each ranks by the rewards of all steps before.
//! Knows the file, not the graph: everything after this sees the nodes only.

use indexmap::IndexMap;

use super::error::Diagnostic;
use super::position::{At, Name};
use super::spec::Spec;
use super::spec::generate::Generate;
use super::spec::merge::{Fresh, Merge};
use super::spec::operator::{Node, Operator};
use super::spec::resources::Resources;
use super::spec::responses_per_prompt::{Adaptive, ResponsesPerPrompt};
use super::spec::score::Score;
use super::spec::select::Select;

/// The nodes of one section of the file.
type Nodes = IndexMap<Name, Node>;

/// Writes out every short form of a pipeline file.
///
/// # Errors
/// The responses of a short form are not scored by one node, or their rewards are not merged.
pub(super) fn write_out(spec: &mut Spec) -> Result<(), Diagnostic> {
    write_out_section(&mut spec.nodes)?;
    spec.iterate.as_mut().map_or(Ok(()), |iterate| write_out_section(&mut iterate.nodes))
}

fn write_out_section(nodes: &mut Nodes) -> Result<(), Diagnostic> {
    let names: Vec<Name> = nodes.keys().cloned().collect();
    for name in names {
        if let Some(short) = Short::find(nodes, &name)? {
            short.write_out(nodes)?;
        }
    }
    Ok(())
}

/// A short form, and the nodes that belong to it.
struct Short {
    /// The name of its `generate`.
    responses: Name,
    generate: Generate,
    adaptive: Adaptive,
    /// How its `generate` runs.
    resources: Resources,
    /// The name of the node that scores its responses.
    rewards: Name,
    score: Score,
    /// How its `score` runs.
    score_resources: Resources,
}

impl Short {
    /// The short form of the node called `name`; `None` if it has none.
    fn find(nodes: &Nodes, name: &Name) -> Result<Option<Self>, Diagnostic> {
        let Some(Node { operator: Operator::Generate(generate), resources }) = nodes.get(name) else { return Ok(None) };
        let ResponsesPerPrompt::Adaptive(adaptive) = &generate.responses_per_prompt else { return Ok(None) };
        let scores: Vec<(&Name, &Score, &Resources)> = nodes
            .iter()
            .filter_map(|(other, node)| match &node.operator {
                Operator::Score(score) if score.responses == *name => Some((other, score, &node.resources)),
                _ => None,
            })
            .collect();
        let [(rewards, score, score_resources)] = scores.as_slice() else {
            let problem = format!(
                "responses_per_prompt with first and then needs one score node that reads \"{}\", found {}",
                name.value,
                scores.len()
            );
            return Err(Diagnostic::at(name.span, problem));
        };
        Ok(Some(Self {
            responses: name.clone(),
            generate: Generate { responses_per_prompt: ResponsesPerPrompt::Fixed(adaptive.first), ..generate.clone() },
            adaptive: (**adaptive).clone(),
            resources: resources.clone(),
            rewards: (*rewards).clone(),
            score: (*score).clone(),
            score_resources: (*score_resources).clone(),
        }))
    }

    /// Puts the nodes of all steps behind the `score` node, and their rewards into every `merge` of
    /// the first ones.
    fn write_out(self, nodes: &mut Nodes) -> Result<(), Diagnostic> {
        let mut rewards = vec![self.rewards.clone()];
        let mut further = Vec::new();
        for step in 2..=self.adaptive.steps + 1 {
            further.extend(self.step(step, &rewards));
            rewards.push(numbered(&self.rewards, step));
        }
        if let Some((taken, _)) = further.iter().find_map(|(name, _)| nodes.get_key_value(name)) {
            let problem =
                format!("\"{}\" is also what responses_per_prompt of \"{}\" makes; choose another name", taken.value, self.responses.value);
            return Err(Diagnostic::at(taken.span, problem));
        }
        let merges = nodes.values_mut().filter_map(|node| match &mut node.operator {
            Operator::Merge(merge) => Some(&mut merge.fresh.0),
            _ => None,
        });
        let mut merged = false;
        for fresh in merges {
            if let Some(first) = fresh.iter().position(|fresh| *fresh == self.rewards) {
                fresh.splice(first..=first, rewards.iter().cloned());
                merged = true;
            }
        }
        if !merged {
            let problem = format!("responses_per_prompt with first and then needs a merge node with `fresh: {}`", self.rewards.value);
            return Err(Diagnostic::at(self.responses.span, problem));
        }
        if let Some(node) = nodes.get_mut(&self.responses) {
            node.operator = Operator::Generate(self.generate);
        }
        let behind = nodes.get_index_of(&self.rewards).map_or(nodes.len(), |index| index + 1);
        for (offset, (name, node)) in further.into_iter().enumerate() {
            nodes.shift_insert(behind + offset, name, node);
        }
        Ok(())
    }

    /// The nodes of a step, from 2 on. `rewards` are those of the steps before.
    fn step(&self, step: u32, rewards: &[Name]) -> [(Name, Node); 4] {
        let responses = numbered(&self.responses, step);
        let pool = suffixed(&responses, "_pool");
        let selection = suffixed(&responses, "_selection");
        let Adaptive { first, then, r#where, .. } = &self.adaptive;
        let merge = Merge { fresh: Fresh(rewards.to_vec()), carried: None, keep_best: false };
        let select = Select {
            prompts: self.generate.prompts.clone(),
            pool: Some(pool.clone()),
            within: self.generate.selection.clone(),
            strategy: r#where.strategy.clone(),
            rank_by: r#where.rank_by,
            ratio: r#where.ratio,
            tokens: r#where.tokens,
            responses_per_prompt: *then,
            ..Select::default()
        };
        let generate = Generate {
            selection: Some(selection.clone()),
            responses_per_prompt: ResponsesPerPrompt::Fixed(*then),
            // Of a prompt that an earlier step left out, some indices stay free.
            first_index: self.generate.first_index.saturating_add(first.saturating_add(then.saturating_mul(step - 2))),
            ..self.generate.clone()
        };
        let score = Score { responses: responses.clone(), ..self.score.clone() };
        let node = |operator, resources: Option<&Resources>| Node { operator, resources: resources.cloned().unwrap_or_default() };
        [
            (pool, node(Operator::Merge(merge), None)),
            (selection, node(Operator::Select(select), None)),
            (responses, node(Operator::Generate(generate), Some(&self.resources))),
            (numbered(&self.rewards, step), node(Operator::Score(score), Some(&self.score_resources))),
        ]
    }
}

/// The name of a node of a step.
fn numbered(name: &Name, step: u32) -> Name {
    suffixed(name, &format!("_{step}"))
}

fn suffixed(name: &Name, suffix: &str) -> Name {
    At { value: format!("{}{suffix}", name.value), span: name.span }
}
