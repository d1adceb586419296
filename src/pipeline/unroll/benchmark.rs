//! The tasks of a `benchmark` node.
//!
//! ```text
//! <node>_answers ─▶ [<node>_<task>_<metric>_responses ─▶ <node>_<task>_<metric>_rewards ─▶] <node>_items ─▶ <node>
//! <node>_baseline_answers ─▶ … ─▶ <node>_baseline_items ─▲
//! ```
//! The tasks of the baseline are outside the iterations. Those in brackets are there for each
//! metric with a reward.

use super::{ResolvedNode, Unrolling, find, only, required};
use crate::pipeline::error::Diagnostic;
use crate::pipeline::graph::{Binding, Input};
use crate::pipeline::position::At;
use crate::pipeline::scope::Target;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::Benchmark;
use crate::pipeline::spec::benchmark::answer::{Answer, AnswerResponses};
use crate::pipeline::spec::benchmark::grade::Grade;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::score::Score;

impl Unrolling<'_> {
    /// Adds the tasks of a `benchmark` in an iteration, before the first one with those of its
    /// baseline; returns the task with the node's name.
    pub(super) fn add_benchmark(
        &mut self,
        node: &ResolvedNode<'_>,
        benchmark: &Benchmark,
        inputs: &[Binding],
        t: Option<u32>,
    ) -> Result<usize, Diagnostic> {
        let policy = required(inputs, Slot::Policy)?;
        let mut compared = Vec::new();
        if let Some(baseline) = self.benchmark_baseline(node, inputs, t)? {
            let graded = match self.graded_baselines.get(&node.name.value) {
                Some(graded) => *graded,
                None => {
                    let model = Binding { slot: Slot::Policy, ..baseline };
                    let graded = self.add_graded(node, "_baseline", benchmark, inputs, model, None)?;
                    self.graded_baselines.insert(node.name.value.clone(), graded);
                    graded
                }
            };
            compared.push(self.task_binding(Slot::BaselineGraded, graded)?);
        } else if benchmark.guard.is_some() {
            let problem = "`guard` compares with a baseline, and there is none; name it with `baseline:`";
            return Err(Diagnostic::at(node.name.span, problem));
        }
        let graded = self.add_graded(node, "", benchmark, inputs, policy, t)?;
        compared.insert(0, self.task_binding(Slot::Graded, graded)?);
        let task = self.add(node, "", t, Operator::Benchmark(benchmark.clone()), compared)?;
        if let Some(t) = t
            && benchmark.stops()
        {
            self.guards.push((t, task));
        }
        Ok(task)
    }

    /// The model to compare with: the given one, or the start of the policy.
    fn benchmark_baseline(&self, node: &ResolvedNode<'_>, inputs: &[Binding], t: Option<u32>) -> Result<Option<Binding>, Diagnostic> {
        if let Some(baseline) = find(inputs, Slot::Baseline) {
            return Ok(Some(baseline));
        }
        let policy = node.links.iter().find(|link| link.slot == Slot::Policy);
        let start = policy.and_then(|policy| match policy.target {
            Target::Same(index) | Target::Last(index) => self.scope.start(index),
            Target::Source(_) | Target::Once(_) => None,
        });
        let Some(input) = start.map(|start| self.input(start, t)).transpose()?.flatten() else { return Ok(None) };
        Ok(Some(Binding { slot: Slot::Baseline, name: self.name(input)?, input }))
    }

    /// Adds the answers of a model and their grades; returns the task with the grades.
    fn add_graded(
        &mut self,
        node: &ResolvedNode<'_>,
        part: &str,
        benchmark: &Benchmark,
        inputs: &[Binding],
        model: Binding,
        t: Option<u32>,
    ) -> Result<usize, Diagnostic> {
        let mut asked = vec![model];
        asked.extend(only(inputs, |slot| [Slot::Items, Slot::Examples].contains(&slot)));
        let answers = self.add(node, &format!("{part}_answers"), t, Operator::Answer(Answer::new(benchmark)), asked)?;
        let mut graded = vec![self.task_binding(Slot::Answers, answers)?];
        graded.extend(only(inputs, |slot| slot == Slot::Items));
        let items = only(inputs, |slot| slot == Slot::Items);
        let mut rewards = only(inputs, |slot| slot == Slot::Reward).into_iter();
        for (at, (name, task)) in benchmark.sorted().into_iter().enumerate() {
            for (metric, _) in task.reward_metrics() {
                let missing = || Diagnostic::internal("unroll: a metric with a reward has none");
                let reward = rewards.next().ok_or_else(missing)?;
                let items = items.get(at).ok_or_else(missing)?;
                let part = format!("{part}_{}_{metric}", name.value);
                let rewards = self.add_answer_rewards(node, &part, &name.value, (answers, reward, items), inputs, t)?;
                graded.push(self.task_binding(Slot::AnswerRewards, rewards)?);
            }
        }
        self.add(node, &format!("{part}_items"), t, Operator::Grade(Grade::new(benchmark)), graded)
    }

    /// Adds the rewards of the generated answers of one task; `sources` are the task with the
    /// answers, the reward and the items.
    fn add_answer_rewards(
        &mut self,
        node: &ResolvedNode<'_>,
        part: &str,
        task: &str,
        sources: (usize, Binding, &Binding),
        inputs: &[Binding],
        t: Option<u32>,
    ) -> Result<usize, Diagnostic> {
        let (answers, reward, items) = sources;
        let prompts = Binding { slot: Slot::Prompts, ..items.clone() };
        let policy = required(self.inputs_of(Input::Task(answers))?, Slot::Policy)?;
        let answered = vec![self.task_binding(Slot::Answers, answers)?, policy, prompts.clone()];
        let operator = Operator::AnswerResponses(AnswerResponses { task: task.to_string() });
        let responses = self.add(node, &format!("{part}_responses"), t, operator, answered)?;
        let at = |value: &str| At { value: value.to_string(), span: node.name.span };
        let score = Score {
            responses: at(&format!("{}{part}_responses", node.name.value)),
            reward: at(&reward.name),
            prompts: Some(at(&prompts.name)),
            non_finite: NonFinite::default(),
            precision: None,
        };
        let mut scored = vec![self.task_binding(Slot::Responses, responses)?, reward, prompts];
        scored.extend(self.policy_for_server(&scored, Input::Task(responses), node.name.span)?);
        scored.extend(only(inputs, |slot| [Slot::Tables, Slot::Rewards].contains(&slot)));
        self.add(node, &format!("{part}_rewards"), t, Operator::Score(score), scored)
    }
}
