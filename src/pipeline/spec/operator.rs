//! A node of the pipeline file: one operator with its settings, and the resources it may use.
//!
//! Knows which slots an operator has, not what fills them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lora::Lora;
use super::pair::{Pair, Rejected};
use super::relational::{Merge, Score, Sql};
use super::sampling::{Evaluate, Generate};
use super::select::Select;
use super::training::{Optimizer, Rank, RewardModel, Sft, Train};
use crate::pipeline::position::Name;
use crate::pipeline::range;
use crate::pipeline::slot::Slot;

/// A node as read: exactly one operator, and maybe resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NodeFields")]
pub struct Node {
    /// What the node does.
    #[serde(flatten)]
    pub operator: Operator,
    /// What it may use; never part of its fingerprint.
    #[serde(skip_serializing_if = "Resources::is_default")]
    pub resources: Resources,
}

/// What a node does, with all its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Choose prompts; makes a table of selection.
    Select(Select),
    /// Sample responses; makes a table of responses.
    Generate(Generate),
    /// Score responses; makes a table of rewards.
    Score(Score),
    /// Merge new and carried responses; makes a pool.
    Merge(Merge),
    /// Pair responses; makes a table of pairs.
    Pair(Pair),
    /// Fill in the pairs' logprobs under the reference; makes a table of pairs. Never written by a user: each `train` brings one along.
    Reference,
    /// Train on pairs; makes a model.
    Train(Train),
    /// Compare with a baseline; makes a table of evaluation.
    Evaluate(Evaluate),
    /// Imitate demonstrations; makes a model.
    Sft(Sft),
    /// Learn preferences; makes a reward model.
    RewardModel(RewardModel),
    /// Rank held-out preferences by a reward model; makes a ranking. Never written by a user: each `reward_model` brings one along.
    Rank(Rank),
    /// Run a query; makes a table of the user's own.
    Sql(Sql),
}

/// What a node of the graph gives to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A table of the user's own: an input table, or what `sql` makes.
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
    /// A ranking of held-out preferences.
    Ranking,
    /// A model: a folder with a checkpoint and a tokenizer.
    Model,
    /// A way to reward responses; what a node makes of this kind is a folder with a reward model and a tokenizer.
    Reward,
}

impl Output {
    /// The name of the table's schema (`responses`, …); none for a user's own table, a model and a reward.
    pub fn table_kind(self) -> Option<&'static str> {
        match self {
            Self::Selection => Some("selection"),
            Self::Responses => Some("responses"),
            Self::Rewards => Some("rewards"),
            Self::Pool => Some("pool"),
            Self::Pairs => Some("pairs"),
            Self::Evaluation => Some("evaluation"),
            Self::Ranking => Some("ranking"),
            Self::Table | Self::Model | Self::Reward => None,
        }
    }

    /// Whether it is a table of any kind.
    pub fn is_table(self) -> bool {
        !matches!(self, Self::Model | Self::Reward)
    }

    /// Whether `found` can stand where this is expected: it is the same, or a user's own table of preferences in the place of pairs.
    pub fn takes(self, found: Self) -> bool {
        self == found || (self == Self::Pairs && found == Self::Table)
    }

    /// What to call it in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Table => "a table",
            Self::Selection => "a selection",
            Self::Responses => "responses",
            Self::Rewards => "rewards",
            Self::Pool => "a pool",
            Self::Pairs => "pairs",
            Self::Evaluation => "an evaluation",
            Self::Ranking => "a ranking",
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
            Self::Reference => "reference",
            Self::Train(_) => "train",
            Self::Evaluate(_) => "evaluate",
            Self::Sft(_) => "sft",
            Self::RewardModel(_) => "reward_model",
            Self::Rank(_) => "rank",
            Self::Sql(_) => "sql",
        }
    }

    /// What the operator makes.
    pub fn output(&self) -> Output {
        match self {
            Self::Select(_) => Output::Selection,
            Self::Generate(_) => Output::Responses,
            Self::Score(_) => Output::Rewards,
            Self::Merge(_) => Output::Pool,
            Self::Pair(_) | Self::Reference => Output::Pairs,
            Self::Evaluate(_) => Output::Evaluation,
            Self::Train(_) | Self::Sft(_) => Output::Model,
            Self::RewardModel(_) => Output::Reward,
            Self::Rank(_) => Output::Ranking,
            Self::Sql(_) => Output::Table,
        }
    }

    /// The adapter that it trains, if it does not train the weights.
    pub fn lora(&self) -> Option<&Lora> {
        match self {
            Self::Train(train) => train.lora.as_ref(),
            Self::Sft(sft) => sft.lora.as_ref(),
            _ => None,
        }
    }

    /// What a node that trains updates its weights by.
    pub fn optimizer(&self) -> Option<&Optimizer> {
        match self {
            Self::Train(train) => Some(&train.optimizer),
            Self::Sft(sft) => Some(&sft.optimizer),
            Self::RewardModel(reward_model) => Some(&reward_model.optimizer),
            _ => None,
        }
    }

    /// The slots that the user filled: slot, name as written, and what must stand there. Tables of `sql` are not among them.
    pub fn slots(&self) -> Vec<(Slot, &Name, Output)> {
        let slots: Vec<(Slot, Option<&Name>, Output)> = match self {
            Self::Select(s) => vec![
                (Slot::Prompts, Some(&s.prompts), Output::Table),
                (Slot::Pool, s.pool.as_ref(), Output::Pool),
                (Slot::Previous, s.previous.as_ref(), Output::Selection),
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
            Self::Merge(m) => vec![(Slot::Fresh, Some(&m.fresh), Output::Rewards), (Slot::Carried, m.carried.as_ref(), Output::Pool)],
            Self::Pair(p) => vec![(Slot::Pool, Some(&p.pool), Output::Pool)],
            Self::Train(t) => vec![
                (Slot::From, Some(&t.from), Output::Model),
                (Slot::Reference, Some(&t.reference), Output::Model),
                (Slot::Pairs, Some(&t.pairs), Output::Pairs),
            ],
            Self::Evaluate(e) => vec![
                (Slot::Policy, Some(&e.policy), Output::Model),
                (Slot::Baseline, Some(&e.baseline), Output::Model),
                (Slot::Prompts, Some(&e.prompts), Output::Table),
                (Slot::Reward, Some(&e.reward), Output::Reward),
                (Slot::Initial, e.initial.as_ref(), Output::Model),
            ],
            Self::Sft(s) => {
                vec![(Slot::From, Some(&s.from), Output::Model), (Slot::Demonstrations, Some(&s.demonstrations), Output::Table)]
            }
            Self::RewardModel(r) => vec![
                (Slot::From, Some(&r.from), Output::Model),
                (Slot::Preferences, Some(&r.preferences), Output::Table),
                (Slot::HeldOut, r.held_out.table(), Output::Table),
            ],
            Self::Reference | Self::Rank(_) | Self::Sql(_) => Vec::new(),
        };
        slots.into_iter().filter_map(|(slot, name, output)| name.map(|name| (slot, name, output))).collect()
    }

    /// Whether the output depends on seed and iteration: on draws, on a random order, or on the iteration responses are sampled_iteration in.
    pub fn draws(&self) -> bool {
        match self {
            Self::Select(select) => select.draws(),
            Self::Pair(pair) => pair.rejected == Rejected::Random,
            Self::Generate(_) | Self::Train(_) | Self::Sft(_) | Self::RewardModel(_) => true,
            Self::Rank(rank) => rank.held_out.table().is_none(),
            Self::Score(_) | Self::Merge(_) | Self::Reference | Self::Evaluate(_) | Self::Sql(_) => false,
        }
    }

    /// Whether a model's chat template may be used, so that the date it writes counts.
    pub fn converses(&self) -> bool {
        !matches!(self, Self::Select(_) | Self::Merge(_) | Self::Pair(_) | Self::Evaluate(_) | Self::Sql(_))
    }

    /// The settings that decide what the operator makes from its inputs, every default written out; no names of inputs, no resources.
    pub fn settings(&self) -> BTreeMap<String, Value> {
        let written = serde_json::to_value(self).unwrap_or_default();
        let settings = written.get(self.name()).and_then(Value::as_object).cloned().unwrap_or_default();
        let is_slot = |key: &str, value: &Value| match Slot::from_name(key) {
            // A share is a setting; a table is an input.
            Some(Slot::HeldOut) => value.is_string(),
            Some(_) => true,
            None => false,
        };
        let mut settings: BTreeMap<String, Value> = settings.into_iter().filter(|(key, value)| !is_slot(key, value)).collect();
        // Where a server is and how it is asked changes nothing about what it serves.
        if let Some(engine) = settings.get_mut("engine") {
            *engine = engine.get("model").map(|model| json!({ "model": model })).unwrap_or_default();
        }
        settings
    }
}

/// What a node may use. Never part of its fingerprint: it changes how fast an output is made, not what it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Where tensors live.
    pub device: Device,
    /// Sequences that go through the model at once; the operator's choice when left out. On the processor a reference takes one at a time.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub batch_size: Option<u32>,
    /// Pairs (or demonstrations) in one backward pass; gradients are added up to the settings' `batch_size`.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub micro_batch_size: Option<u32>,
    /// Less memory for more work in a training node on the CPU: layers are computed again on the way back instead of being kept. The same result, bit for bit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// Memory that a node with a model may take on the CPU, in 10⁹ bytes; what is free when the run begins when left out. Fewer responses or pairs then go
    /// through the model together, with the same result; where not even one fits, the run does not begin.
    #[serde(deserialize_with = "range::optional_positive", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub memory_gb: Option<f64>,
    /// Input rows (prompts, for `generate`) in one part, the unit of what a kill can lose.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows_per_part: Option<u32>,
    /// Optimizer steps between two checkpoints of a training node.
    #[serde(deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub checkpoint_every: Option<u32>,
}

impl Resources {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A GPU where there is one and the program was built for it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// A node: exactly one operator, and maybe `resources`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Node", extend("minProperties" = 1, "maxProperties" = 2))]
pub(super) struct NodeFields {
    /// Which prompts get new responses.
    select: Option<Select>,
    /// Responses of a policy to prompts.
    generate: Option<Generate>,
    /// A reward for every response.
    score: Option<Score>,
    /// New responses, and old ones of the prompts that got none.
    merge: Option<Merge>,
    /// A chosen and a rejected response of each prompt.
    pair: Option<Pair>,
    /// A policy trained on pairs.
    train: Option<Train>,
    /// A policy against a baseline, on held-out prompts.
    evaluate: Option<Evaluate>,
    /// A policy trained to imitate demonstrations.
    sft: Option<Sft>,
    /// A reward model, trained on preferences.
    reward_model: Option<RewardModel>,
    /// A table of your own, from one query.
    sql: Option<Sql>,
    /// What the node may use; never part of its fingerprint.
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
            fields.sql.map(Operator::Sql),
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
