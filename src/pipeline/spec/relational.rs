//! The operators that are plans over tables: select, score, merge, pair and sql.
//!
//! Knows what a user may write about them, not how they run.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::non_finite::NonFinite;
use super::query::Query;
use crate::pipeline::position::Name;
use crate::pipeline::range;

/// Which prompts get new responses: all of them in the first iteration, later the first ceil(ratio·N) by `strategy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// The table of prompts to choose from.
    pub prompts: Name,
    /// The pool whose rewards rank the prompts, usually `pool[t-1]`. Needed unless the strategy is `all`; `none` at t = 1 selects every prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// How prompts are chosen. OPTune's is `lowest_reward`; its control Rdm_ρ is `random`.
    #[serde(default)]
    pub strategy: Strategy,
    /// The statistic of a prompt's rewards that `lowest_reward` ranks by, lowest first; ties by prompt_id. The paper's abstract leaves it open.
    #[serde(default)]
    pub rank_by: RankBy,
    /// The selection ratio ρ, above 0 and at most 1: the share of prompts that get new responses. 1 is the paper's baseline.
    #[serde(default = "whole", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub ratio: f64,
}

/// How prompts are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The prompts whose responses were rewarded least.
    #[default]
    LowestReward,
    /// Prompts drawn from the seed, without looking at rewards.
    Random,
    /// Every prompt, whatever the ratio.
    All,
}

/// A statistic of the rewards of one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RankBy {
    /// The mean reward.
    #[default]
    Mean,
    /// The lowest reward.
    Min,
    /// The highest reward.
    Max,
    /// The highest less the lowest reward.
    Gap,
}

/// A reward for every response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The responses to score.
    pub responses: Name,
    /// The reward, one of `inputs`.
    pub reward: Name,
    /// The prompts that the responses answer; found from the responses when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Name>,
    /// What happens where a reward is NaN, infinite or null. `skip` leaves such responses out, and counts them.
    #[serde(default, skip_serializing_if = "NonFinite::is_default")]
    pub non_finite: NonFinite,
}

/// The pool of an iteration: the new responses of the selected prompts and the old ones of all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// The rewards of this iteration's responses.
    pub fresh: Name,
    /// The pool to carry the other prompts' responses over from, usually `pool[t-1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Name>,
}

/// A chosen (highest reward) and a rejected (lowest reward) response for every prompt of a pool whose reward_gap is above 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The pool to take responses from.
    pub pool: Name,
    /// How much each pair counts in the loss.
    #[serde(default)]
    pub weight: Weight,
}

/// A pair's weight: made from its reward_gap by `kind`, then normalized, then clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// How the weight follows from the gap. The paper leaves the exact form open.
    pub kind: WeightKind,
    /// What the gap is multiplied by first: the paper's β₂. Above 0.
    #[serde(default = "whole", deserialize_with = "range::positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub gap_scale: f64,
    /// What the weights are divided by.
    #[serde(default)]
    pub normalize: Normalize,
    /// The largest weight; none leaves them as they are.
    #[serde(default, deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: Option<f64>,
}

impl Default for Weight {
    fn default() -> Self {
        Self { kind: WeightKind::None, gap_scale: 1.0, normalize: Normalize::None, clip: None }
    }
}

/// How a weight follows from the reward_gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightKind {
    /// 1 for every pair: plain DPO.
    None,
    /// gap_scale · reward_gap.
    Linear,
    /// σ(gap_scale · reward_gap).
    Sigmoid,
}

/// What weights are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Nothing.
    #[default]
    None,
    /// The mean weight over the pairs of the iteration.
    Mean,
}

/// A table of the user's own, from one SQL query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// The query, or the path of a file that ends in `.sql`.
    pub query: Query,
    /// Tables by the names that the query uses for them, where these are not the tables' own: `{ previous: "pool[t-1]" }`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub tables: IndexMap<String, Name>,
}

fn whole() -> f64 {
    1.0
}
