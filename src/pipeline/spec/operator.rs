//! A node of the pipeline file: one operator with its settings, and its resources.
//!
//! Knows the slots of an operator, not the inputs in them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::benchmark::Benchmark;
use super::benchmark::answer::{Answer, AnswerResponses};
use super::benchmark::grade::Grade;
use super::command::{Command, Made};
use super::evaluate::Evaluate;
use super::generate::Generate;
use super::judge::{Judge, Question};
use super::lora::Lora;
use super::merge::Merge;
use super::optimizer::Optimizer;
use super::pair::{Pair, Rejected};
use super::precision::Precision;
use super::rank::Rank;
use super::reference::Reference;
use super::resources::Resources;
use super::reward_model::RewardModel;
use super::score::Score;
use super::select::Select;
use super::sft::Sft;
use super::sql::Sql;
use super::texts::Texts;
use super::train::Train;
use crate::pipeline::position::{At, Name};
use crate::pipeline::slot::Slot;

/// A node: exactly one operator, with or without resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NodeFields")]
pub struct Node {
    /// The operator.
    #[serde(flatten)]
    pub operator: Operator,
    /// Its resources; never part of its fingerprint.
    #[serde(skip_serializing_if = "Resources::is_default")]
    pub resources: Resources,
}

/// An operator with all its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Selects prompts; makes a table of selection.
    Select(Select),
    /// Samples responses; makes a table of responses.
    Generate(Generate),
    /// Scores responses; makes a table of rewards.
    Score(Score),
    /// Merges new and carried responses; makes a pool.
    Merge(Merge),
    /// Pairs responses; makes a table of pairs.
    Pair(Pair),
    /// Computes the logprobs of the pairs under the reference; makes a table of pairs. Never
    /// written by a user: every `train` adds one.
    Reference(Reference),
    /// Trains on pairs; makes a model.
    Train(Train),
    /// Compares with a baseline; makes a table of evaluation.
    Evaluate(Evaluate),
    /// Takes a table of texts as responses. Never written by a user: an `evaluate` with such a
    /// baseline adds one.
    Texts(Texts),
    /// Compares responses by a judge; makes judgments. Never written by a user: every `evaluate`
    /// with a `judge` adds one for each baseline.
    Judge(Box<Judge>),
    /// Imitates demonstrations; makes a model.
    Sft(Sft),
    /// Learns preferences; makes a reward model.
    RewardModel(RewardModel),
    /// Ranks held-out preferences by a reward model; makes a ranking. Never written by a user:
    /// every `reward_model` adds one.
    Rank(Rank),
    /// Answers the items of a benchmark; makes a table of answers. Never written by a user: every
    /// `benchmark` adds one for each model.
    Answer(Answer),
    /// Grades answers; makes a table of items. Never written by a user: every `benchmark` adds one
    /// for each model.
    Grade(Grade),
    /// Makes a table of responses of the generated answers of one task, for a reward. Never written
    /// by a user.
    AnswerResponses(AnswerResponses),
    /// Compares graded answers with the baseline's; makes a table of benchmark.
    Benchmark(Benchmark),
    /// Runs a query; makes a table of the user's own.
    Sql(Sql),
    /// Runs a program of the user's; makes a table or a model.
    Command(Command),
}

/// The kind of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A table of the user's own: an input table, or the output of `sql` or of a command.
    Table,
    /// A table of selection.
    Selection,
    /// A table of responses.
    Responses,
    /// A table of rewards.
    Rewards,
    /// A pool.
    Pool,
    /// A table of pairs.
    Pairs,
    /// A table of evaluation.
    Evaluation,
    /// The verdicts of a judge.
    Judgments,
    /// A ranking of held-out preferences.
    Ranking,
    /// A table of answers to a benchmark.
    Answers,
    /// A table of graded answers.
    Items,
    /// A table of a benchmark's metrics.
    Benchmark,
    /// A model: a folder with a checkpoint and a tokenizer.
    Model,
    /// A reward. As the output of a node it is a folder with a reward model and a tokenizer.
    Reward,
}

impl Output {
    /// The name of the table's schema (`responses`, …); none for a user's own table, a model and a
    /// reward.
    pub fn table_kind(self) -> Option<&'static str> {
        match self {
            Self::Selection => Some("selection"),
            Self::Responses => Some("responses"),
            Self::Rewards => Some("rewards"),
            Self::Pool => Some("pool"),
            Self::Pairs => Some("pairs"),
            Self::Evaluation => Some("evaluation"),
            Self::Judgments => Some("judgments"),
            Self::Ranking => Some("ranking"),
            Self::Answers => Some("answers"),
            Self::Items => Some("items"),
            Self::Benchmark => Some("benchmark"),
            Self::Table | Self::Model | Self::Reward => None,
        }
    }

    /// Whether it is a table of any kind.
    pub fn is_table(self) -> bool {
        !matches!(self, Self::Model | Self::Reward)
    }

    /// Whether `found` fits a slot for this output: it is equal, or it is a user's table of
    /// preferences in place of pairs.
    pub fn takes(self, found: Self) -> bool {
        self == found || (self == Self::Pairs && found == Self::Table)
    }

    /// Its noun, for messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Table => "a table",
            Self::Selection => "a selection",
            Self::Responses => "responses",
            Self::Rewards => "rewards",
            Self::Pool => "a pool",
            Self::Pairs => "pairs",
            Self::Evaluation => "an evaluation",
            Self::Judgments => "judgments",
            Self::Ranking => "a ranking",
            Self::Answers => "answers",
            Self::Items => "items",
            Self::Benchmark => "a benchmark",
            Self::Model => "a model",
            Self::Reward => "a reward",
        }
    }
}

impl Operator {
    /// The operator's name, as in the pipeline file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Select(_) => "select",
            Self::Generate(_) => "generate",
            Self::Score(_) => "score",
            Self::Merge(_) => "merge",
            Self::Pair(_) => "pair",
            Self::Reference(_) => "reference",
            Self::Train(_) => "train",
            Self::Evaluate(_) => "evaluate",
            Self::Texts(_) => "texts",
            Self::Judge(_) => "judge",
            Self::Sft(_) => "sft",
            Self::RewardModel(_) => "reward_model",
            Self::Rank(_) => "rank",
            Self::Answer(_) => "answer",
            Self::Grade(_) => "grade",
            Self::AnswerResponses(_) => "answer_responses",
            Self::Benchmark(_) => "benchmark",
            Self::Sql(_) => "sql",
            Self::Command(_) => "command",
        }
    }

    /// Its node of `iterate` is for the multiples of this number, and for the last iteration.
    pub fn every(&self) -> u32 {
        match self {
            Self::Evaluate(evaluate) => evaluate.every,
            Self::Benchmark(benchmark) => benchmark.every,
            _ => 1,
        }
    }

    /// Whether its node of `iterate` has an output in iteration `t` of `iterations`.
    pub fn is_due(&self, t: u32, iterations: u32) -> bool {
        t == iterations || t.is_multiple_of(self.every())
    }

    /// The kind of its output.
    pub fn output(&self) -> Output {
        match self {
            Self::Select(_) => Output::Selection,
            Self::Generate(_) | Self::AnswerResponses(_) | Self::Texts(_) => Output::Responses,
            Self::Score(_) => Output::Rewards,
            Self::Merge(_) => Output::Pool,
            Self::Pair(_) | Self::Reference(_) => Output::Pairs,
            Self::Evaluate(_) => Output::Evaluation,
            Self::Judge(_) => Output::Judgments,
            Self::Train(_) | Self::Sft(_) => Output::Model,
            Self::RewardModel(_) => Output::Reward,
            Self::Rank(_) => Output::Ranking,
            Self::Answer(_) => Output::Answers,
            Self::Grade(_) => Output::Items,
            Self::Benchmark(_) => Output::Benchmark,
            Self::Sql(_) => Output::Table,
            Self::Command(command) => match command.output {
                Made::Table | Made::Prompts | Made::Preferences => Output::Table,
                Made::Selection => Output::Selection,
                Made::Responses => Output::Responses,
                Made::Rewards => Output::Rewards,
                Made::Pool => Output::Pool,
                Made::Pairs => Output::Pairs,
                Made::Model => Output::Model,
                Made::RewardModel => Output::Reward,
            },
        }
    }

    /// The settings of its adapter, if it trains one instead of the weights.
    pub fn lora(&self) -> Option<&Lora> {
        match self {
            Self::Train(train) => train.lora.as_ref(),
            Self::Sft(sft) => sft.lora.as_ref(),
            _ => None,
        }
    }

    /// The optimizer of an operator that trains here.
    pub fn optimizer(&self) -> Option<&Optimizer> {
        match self {
            Self::Train(train) if train.engine.is_some() => None,
            Self::Train(train) => Some(&train.optimizer),
            Self::Sft(sft) => Some(&sft.optimizer),
            Self::RewardModel(reward_model) => Some(&reward_model.optimizer),
            _ => None,
        }
    }

    /// The precision of its models, if the node has one of its own.
    pub fn precision(&self) -> Option<&At<Precision>> {
        match self {
            Self::Generate(generate) => generate.precision.as_ref(),
            Self::Score(score) => score.precision.as_ref(),
            Self::Train(train) => train.precision.as_ref(),
            Self::Evaluate(evaluate) => evaluate.precision.as_ref(),
            Self::Sft(sft) => sft.precision.as_ref(),
            Self::RewardModel(reward_model) => reward_model.precision.as_ref(),
            Self::Benchmark(benchmark) => benchmark.precision.as_ref(),
            Self::Select(_) | Self::Merge(_) | Self::Pair(_) | Self::Reference(_) | Self::Rank(_) | Self::Sql(_) => None,
            Self::Answer(_) | Self::Grade(_) | Self::AnswerResponses(_) | Self::Command(_) => None,
            Self::Texts(_) | Self::Judge(_) => None,
        }
    }

    /// The filled slots of the file: slot, name as written, and the expected output. Without the
    /// tables of `sql` and the inputs of a command.
    pub fn slots(&self) -> Vec<(Slot, &Name, Output)> {
        let slots: Vec<(Slot, Option<&Name>, Output)> = match self {
            Self::Select(s) => vec![
                (Slot::Prompts, Some(&s.prompts), Output::Table),
                (Slot::Pool, s.pool.as_ref(), Output::Pool),
                (Slot::Previous, s.previous.as_ref(), Output::Selection),
                (Slot::Within, s.within.as_ref(), Output::Selection),
            ],
            Self::Generate(g) => vec![
                (Slot::Policy, Some(&g.policy), Output::Model),
                (Slot::Prompts, Some(&g.prompts), Output::Table),
                (Slot::Selection, g.selection.as_ref(), Output::Selection),
            ],
            Self::Score(s) => vec![
                (Slot::Responses, Some(&s.responses), Output::Responses),
                (Slot::Reward, Some(&s.reward), Output::Reward),
                (Slot::Prompts, s.prompts.as_ref(), Output::Table),
            ],
            Self::Merge(m) => {
                let mut slots: Vec<_> = m.fresh.0.iter().map(|fresh| (Slot::Fresh, Some(fresh), Output::Rewards)).collect();
                slots.push((Slot::Carried, m.carried.as_ref(), Output::Pool));
                slots
            }
            Self::Pair(p) => vec![(Slot::Pool, Some(&p.pool), Output::Pool)],
            Self::Train(t) => vec![
                (Slot::From, Some(&t.from), Output::Model),
                (Slot::Reference, Some(&t.reference), Output::Model),
                (Slot::Pairs, Some(&t.pairs), Output::Pairs),
            ],
            Self::Evaluate(e) => {
                let mut slots = vec![(Slot::Policy, Some(&e.policy), Output::Model)];
                slots.extend(e.baseline.0.iter().map(|baseline| (Slot::Baseline, Some(baseline), Output::Model)));
                slots.push((Slot::Prompts, Some(&e.prompts), Output::Table));
                slots.push((Slot::Reward, Some(&e.reward), Output::Reward));
                slots.push((Slot::Initial, e.initial.as_ref(), Output::Model));
                slots
            }
            Self::Sft(s) => {
                vec![(Slot::From, Some(&s.from), Output::Model), (Slot::Demonstrations, Some(&s.demonstrations), Output::Table)]
            }
            Self::RewardModel(r) => vec![
                (Slot::From, Some(&r.from), Output::Model),
                (Slot::Preferences, Some(&r.preferences), Output::Table),
                (Slot::HeldOut, r.held_out.table(), Output::Table),
            ],
            Self::Benchmark(b) => {
                let mut slots = vec![(Slot::Policy, Some(&b.policy), Output::Model), (Slot::Baseline, b.baseline.as_ref(), Output::Model)];
                let tasks = b.sorted();
                slots.extend(tasks.iter().map(|(_, task)| (Slot::Items, Some(&task.items), Output::Table)));
                let examples = tasks.iter().filter_map(|(_, task)| task.few_shot.as_ref()?.from.as_ref());
                slots.extend(examples.map(|name| (Slot::Examples, Some(name), Output::Table)));
                let rewards = tasks.iter().flat_map(|(_, task)| task.reward_metrics());
                slots.extend(rewards.map(|(_, name)| (Slot::Reward, Some(name), Output::Reward)));
                slots
            }
            Self::Reference(_)
            | Self::Rank(_)
            | Self::Answer(_)
            | Self::Grade(_)
            | Self::AnswerResponses(_)
            | Self::Texts(_)
            | Self::Judge(_)
            | Self::Sql(_)
            | Self::Command(_) => Vec::new(),
        };
        slots.into_iter().filter_map(|(slot, name, output)| name.map(|name| (slot, name, output))).collect()
    }

    /// Whether the output depends on seed and iteration: by random draws, a random order, or the
    /// iteration of its responses.
    pub fn draws(&self) -> bool {
        match self {
            Self::Select(select) => select.draws(),
            Self::Pair(pair) => pair.rejected == Rejected::Random,
            Self::Generate(_) | Self::Train(_) | Self::Sft(_) | Self::RewardModel(_) | Self::Command(_) => true,
            Self::Rank(rank) => rank.held_out.table().is_none(),
            Self::Score(_) | Self::Merge(_) | Self::Reference(_) | Self::Evaluate(_) | Self::Sql(_) => false,
            Self::Answer(_) | Self::Grade(_) | Self::AnswerResponses(_) | Self::Benchmark(_) => false,
            Self::Texts(_) | Self::Judge(_) => false,
        }
    }

    /// Whether the operator can use a chat template; then the date is one of its settings.
    pub fn converses(&self) -> bool {
        match self {
            Self::Select(_) | Self::Merge(_) | Self::Pair(_) | Self::Evaluate(_) | Self::Judge(_) | Self::Sql(_) => false,
            Self::Grade(_) | Self::AnswerResponses(_) | Self::Benchmark(_) | Self::Command(_) => false,
            Self::Answer(answer) => answer.questions.values().any(|question| question.chat),
            _ => true,
        }
    }

    /// The settings for the fingerprint, every default written out; without names of inputs,
    /// without the precision, which depends on the file, and without resources.
    pub fn settings(&self) -> BTreeMap<String, Value> {
        // Its keys about place and limits have no effect, and one has the name of a slot.
        if let Self::Judge(judge) = self {
            let settings = judge.settings(Question::Pair);
            return settings.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        let written = serde_json::to_value(self);
        debug_assert!(written.is_ok(), "settings are numbers, strings and maps with string keys");
        let written = written.unwrap_or_default();
        let settings = written.get(self.name()).and_then(Value::as_object).cloned().unwrap_or_default();
        let is_slot = |key: &str, value: &Value| match Slot::from_name(key) {
            // A share is a setting; a table is an input.
            Some(Slot::HeldOut) => value.is_string(),
            Some(_) => true,
            None => false,
        };
        let mut settings: BTreeMap<String, Value> = settings.into_iter().filter(|(key, value)| !is_slot(key, value)).collect();
        // Its tasks hold names of inputs. Their answers and grades are inputs of its table.
        if let Self::Benchmark(benchmark) = self {
            settings.insert("tasks".to_string(), json!(benchmark.primary_metrics()));
        }
        settings.remove("precision");
        // It decides which outputs there are, not what is in them.
        settings.remove("every");
        // The address of a server and its limits have no effect on the responses, and those of a
        // trainer none on the model. The contents of its files are inputs.
        if let Some(engine) = settings.get_mut("engine") {
            let mut kept = serde_json::Map::new();
            for key in ["model", "command", "version"] {
                kept.extend(engine.get(key).map(|value| (key.to_string(), value.clone())));
            }
            *engine = Value::Object(kept);
        }
        if let Self::Command(_) = self {
            // The contents of files are inputs, and a time limit has no effect on the output.
            settings.retain(|key, _| !["files", "timeout_seconds"].contains(&key.as_str()));
        }
        settings
    }
}

/// A node: exactly one operator, with or without `resources`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Node", extend("minProperties" = 1, "maxProperties" = 2))]
pub(super) struct NodeFields {
    /// Selects prompts for new responses.
    select: Option<Select>,
    /// Samples responses of a policy.
    generate: Option<Generate>,
    /// A reward for every response.
    score: Option<Score>,
    /// Merges new responses with old ones of the other prompts.
    merge: Option<Merge>,
    /// A chosen and a rejected response of each prompt.
    pair: Option<Pair>,
    /// A policy trained on pairs.
    train: Option<Train>,
    /// Compares a policy with a baseline on held-out prompts.
    evaluate: Option<Evaluate>,
    /// A policy trained to imitate demonstrations.
    sft: Option<Sft>,
    /// A reward model, trained on preferences.
    reward_model: Option<RewardModel>,
    /// What tuning kept, on tables of questions.
    benchmark: Option<Benchmark>,
    /// A table of your own, from one query.
    sql: Option<Sql>,
    /// A table or a model of your own, from a program.
    command: Option<Command>,
    /// The resources of the node; never part of its fingerprint.
    resources: Option<Resources>,
}

impl JsonSchema for Node {
    fn schema_name() -> Cow<'static, str> {
        NodeFields::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        NodeFields::json_schema(generator)
    }
}

impl TryFrom<NodeFields> for Node {
    type Error = String;

    fn try_from(fields: NodeFields) -> Result<Self, String> {
        let operators = [
            fields.select.map(Operator::Select),
            fields.generate.map(Operator::Generate),
            fields.score.map(Operator::Score),
            fields.merge.map(Operator::Merge),
            fields.pair.map(Operator::Pair),
            fields.train.map(Operator::Train),
            fields.evaluate.map(Operator::Evaluate),
            fields.sft.map(Operator::Sft),
            fields.reward_model.map(Operator::RewardModel),
            fields.benchmark.map(Operator::Benchmark),
            fields.sql.map(Operator::Sql),
            fields.command.map(Operator::Command),
        ];
        let mut operators = operators.into_iter().flatten();
        match (operators.next(), operators.next()) {
            (Some(operator), None) => Ok(Self { operator, resources: fields.resources.unwrap_or_default() }),
            (Some(first), Some(second)) => {
                Err(format!("expected one operator, found `{}` and `{}`; give each a node of its own", first.name(), second.name()))
            }
            (None, _) => Err("expected an operator such as `{ generate: { … } }`, found none".to_string()),
        }
    }
}
