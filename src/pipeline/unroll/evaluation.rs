//! The tasks of an evaluation: responses and rewards of the policy and of each baseline, a
//! comparison with each, and the judge's verdicts.
//!
//! The responses of a model are sampled once for a node, also where it is a baseline later: as
//! `policy[t-1]`. Knows no other node.

use super::super::check::{Link, ResolvedNode};
use super::super::error::Diagnostic;
use super::super::graph::{Binding, Input, SourceKind};
use super::super::position::At;
use super::super::scope::Target;
use super::super::slot::Slot;
use super::super::spec::baselines::Baselines;
use super::super::spec::evaluate::Evaluate;
use super::super::spec::generate::Generate;
use super::super::spec::operator::Operator;
use super::super::spec::responses_per_prompt::ResponsesPerPrompt;
use super::super::spec::score::Score;
use super::super::spec::texts::Texts;
use super::{Sampled, Unrolling, find, only, required};

impl Unrolling<'_> {
    /// Adds the responses of the baselines that are the same for all iterations; nothing for other
    /// nodes.
    pub(super) fn add_fixed_baselines(&mut self, node: &ResolvedNode<'_>) -> Result<(), Diagnostic> {
        let Operator::Evaluate(evaluate) = &node.node.operator else { return Ok(()) };
        let is_fixed = |link: &&Link| matches!(link.target, Target::Source(_) | Target::Once(_));
        // The inputs made in an iteration are not part of these baselines.
        let inputs = self.bindings(node.links.iter().filter(is_fixed), None)?;
        for (index, baseline) in baselines(node).enumerate().filter(|(_, link)| is_fixed(link)) {
            let part = format!("_{}", Baselines::part(index, &baseline.name));
            self.add_baseline(node, &part, evaluate, &inputs, baseline, None)?;
        }
        Ok(())
    }

    /// Adds an evaluation in one iteration. Returns its comparison with the first baseline.
    pub(super) fn add_evaluation(
        &mut self,
        node: &ResolvedNode<'_>,
        evaluate: &Evaluate,
        inputs: &[Binding],
        t: Option<u32>,
    ) -> Result<usize, Diagnostic> {
        let policy = required(inputs, Slot::Policy)?;
        let (responses, rewards) = self.add_sampling(node, "", evaluate, inputs, policy, t)?;
        let mut main = None;
        for (index, baseline) in baselines(node).enumerate() {
            let part = Baselines::part(index, &baseline.name);
            let (baseline_responses, baseline_rewards) = self.add_baseline(node, &format!("_{part}"), evaluate, inputs, baseline, t)?;
            let initial = self.initial(node, inputs, t)?;
            let sides = [(Slot::Responses, responses), (Slot::BaselineResponses, baseline_responses)];
            let sides = sides.into_iter().map(|(slot, task)| self.task_binding(slot, task)).collect::<Result<Vec<_>, _>>()?;
            let [policy_side, baseline_side] = sides.as_slice() else { return Err(Diagnostic::internal("unroll: not two sides")) };
            let evaluated = vec![
                policy_side.clone(),
                self.task_binding(Slot::Rewards, rewards)?,
                baseline_side.clone(),
                self.task_binding(Slot::BaselineRewards, baseline_rewards)?,
                Binding { slot: Slot::Initial, name: self.name(initial)?, input: initial },
            ];
            let suffix = if index == 0 { String::new() } else { format!("_{part}") };
            // Server and judge have no effect on a comparison by rewards.
            let compared = Evaluate { judge: None, engine: None, ..evaluate.clone() };
            let task = self.add(node, &suffix, t, Operator::Evaluate(compared), evaluated)?;
            main.get_or_insert(task);
            if let Some(judge) = &evaluate.judge {
                let judged = vec![policy_side.clone(), baseline_side.clone(), required(inputs, Slot::Prompts)?];
                self.add(node, &format!("{suffix}_judge"), t, Operator::Judge(judge.clone()), judged)?;
            }
        }
        main.ok_or_else(|| Diagnostic::internal("unroll: an evaluation has no baseline"))
    }

    /// The tasks of a baseline's responses and rewards, added unless they are there.
    fn add_baseline(
        &mut self,
        node: &ResolvedNode<'_>,
        part: &str,
        evaluate: &Evaluate,
        inputs: &[Binding],
        baseline: &Link,
        t: Option<u32>,
    ) -> Result<(usize, usize), Diagnostic> {
        let model = self.input(baseline.target, t)?.ok_or_else(|| Diagnostic::internal("unroll: a baseline has no start"))?;
        if let Some(there) = self.sampled.iter().find(|there| there.node == node.name.value && there.model == model) {
            return Ok((there.responses, there.rewards));
        }
        let binding = Binding { slot: Slot::Baseline, name: self.name(model)?, input: model };
        self.add_sampling(node, part, evaluate, inputs, binding, t)
    }

    /// Adds the responses of a model, or of a table of texts, to all prompts of an evaluation, and
    /// their rewards.
    fn add_sampling(
        &mut self,
        node: &ResolvedNode<'_>,
        part: &str,
        evaluate: &Evaluate,
        inputs: &[Binding],
        model: Binding,
        t: Option<u32>,
    ) -> Result<(usize, usize), Diagnostic> {
        let prompts = required(inputs, Slot::Prompts)?;
        let reward = required(inputs, Slot::Reward)?;
        let at = |value: &str| At { value: value.to_string(), span: node.name.span };
        let score = Score {
            responses: at(&format!("{}{part}_responses", node.name.value)),
            reward: at(&reward.name),
            prompts: Some(at(&prompts.name)),
            precision: None,
            non_finite: evaluate.non_finite,
        };
        let sampled = model.input;
        let (operator, sampling) = if self.is_texts(sampled)? {
            // The model of the NLL reads the texts, so they are its tokens.
            let initial = self.initial(node, inputs, t)?;
            let reader = Binding { slot: Slot::Policy, name: self.name(initial)?, input: initial };
            (Operator::Texts(Texts {}), vec![Binding { slot: Slot::Texts, ..model }, reader, prompts.clone()])
        } else {
            let generate = generate(evaluate, at(&model.name), at(&prompts.name));
            (Operator::Generate(generate), vec![Binding { slot: Slot::Policy, ..model }, prompts.clone()])
        };
        let responses = self.add(node, &format!("{part}_responses"), t, operator, sampling)?;
        let mut scoring = vec![self.task_binding(Slot::Responses, responses)?, reward, prompts];
        scoring.extend(self.policy_for_server(inputs, Input::Task(responses), node.name.span)?);
        scoring.extend(only(inputs, |slot| [Slot::Tables, Slot::Rewards].contains(&slot)));
        let rewards = self.add(node, &format!("{part}_rewards"), t, Operator::Score(score), scoring)?;
        self.sampled.push(Sampled { node: node.name.value.clone(), model: sampled, responses, rewards });
        Ok((responses, rewards))
    }

    /// Whether a baseline is a table of texts.
    fn is_texts(&self, input: Input) -> Result<bool, Diagnostic> {
        Ok(match input {
            Input::Source(index) => matches!(self.source(index)?.kind, SourceKind::Table { .. }),
            Input::Task(_) => self.is_own_table(input)?,
        })
    }

    /// The model for the mean NLL of an evaluation: the given one, the start of the policy, or the
    /// first baseline that is a model.
    fn initial(&self, node: &ResolvedNode<'_>, inputs: &[Binding], t: Option<u32>) -> Result<Input, Diagnostic> {
        if let Some(initial) = find(inputs, Slot::Initial) {
            return Ok(initial.input);
        }
        let policy = node.links.iter().find(|link| link.slot == Slot::Policy);
        let start = policy.and_then(|policy| match policy.target {
            Target::Same(index) | Target::Last(index) => self.scope.start(index),
            Target::Source(_) | Target::Once(_) => None,
        });
        if let Some(start) = start
            && let Some(input) = self.input(start, t)?
        {
            return Ok(input);
        }
        for baseline in only(inputs, |slot| slot == Slot::Baseline) {
            if !self.is_texts(baseline.input)? {
                return Ok(baseline.input);
            }
        }
        match find(inputs, Slot::Policy) {
            Some(policy) => Ok(policy.input),
            None => Err(Diagnostic::at(
                node.name.span,
                "expected the model for the mean NLL as `initial`, because the policy has no start and every baseline is a table",
            )),
        }
    }
}

/// The links to the baselines, in the order of the file.
fn baselines<'n>(node: &'n ResolvedNode<'_>) -> impl Iterator<Item = &'n Link> {
    node.links.iter().filter(|link| link.slot == Slot::Baseline)
}

/// The sampling of an evaluation.
fn generate(evaluate: &Evaluate, policy: At<String>, prompts: At<String>) -> Generate {
    Generate {
        policy,
        prompts,
        selection: None,
        responses_per_prompt: ResponsesPerPrompt::Fixed(evaluate.responses_per_prompt),
        first_index: 0,
        max_new_tokens: evaluate.max_new_tokens,
        max_prompt_tokens: evaluate.max_prompt_tokens,
        temperature: evaluate.temperature,
        top_p: evaluate.top_p,
        top_k: evaluate.top_k,
        min_p: evaluate.min_p,
        repetition_penalty: evaluate.repetition_penalty,
        presence_penalty: evaluate.presence_penalty,
        min_new_tokens: evaluate.min_new_tokens,
        stop: evaluate.stop.clone(),
        precision: None,
        engine: evaluate.engine.clone(),
    }
}
