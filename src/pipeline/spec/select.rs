//! `select`: the prompts with new responses. The formulas are in `operators::select`, at each
//! strategy.
//!
//! Knows the keys of the operator, not the ranking.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::pipeline::position::Name;
use crate::pipeline::range;

/// The prompts for new responses: all in the first iteration, later the first ceil(ratio·N) by
/// `strategy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// The table of prompts to choose from.
    pub prompts: Name,
    /// The pool to rank prompts by, usually `pool[t-1]`, or a table of your own with the columns
    /// `prompt_id` and `reward`. Required for every strategy except `all`. A start from `none`
    /// selects every prompt at t = 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// The selection of the previous iteration, usually `selection[t-1]`. Required by
    /// `reward_gain`, taken by `posterior` as the beliefs so far, refused by all other strategies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Name>,
    /// A selection of prompts to choose among; the others get no row. `ratio` is then a share of
    /// these prompts. By default all prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Name>,
    /// The selection strategy, a name or a name with settings. OPTune's is `lowest_reward`; its
    /// control Rdm_ρ is `random`.
    #[serde(default)]
    pub strategy: Strategy,
    /// The statistic of the rewards of a prompt, as its rank. The paper's abstract leaves it open.
    #[serde(default)]
    pub rank_by: RankBy,
    /// The selection ratio ρ, above 0 and at most 1: the share of prompts with new responses. 1 is
    /// the paper's baseline.
    #[serde(default = "whole", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub ratio: f64,
    /// The budget in tokens, at least 1: no further prompt is selected once the new responses of
    /// the selected ones are expected to use it up. `ratio` is a limit too. No limit by default.
    #[serde(default, deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens: Option<u32>,
    /// New responses to each selected prompt, as in its `generate`, at least 1. Only `tokens` and
    /// `expected_gain` use it.
    #[serde(default = "responses_per_prompt", deserialize_with = "range::count", skip_serializing_if = "is_two")]
    #[schemars(range(min = 1))]
    pub responses_per_prompt: u32,
    /// The factor of the ratio in every iteration from the third on, above 0 and at most 1: ρ_t =
    /// ratio · ratio_decay^(t − 2). 1 for a constant ratio.
    #[serde(default = "whole", deserialize_with = "range::share", skip_serializing_if = "is_whole")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub ratio_decay: f64,
    /// The most iterations with the same response, at least 1. Prompts with older responses are
    /// always selected, whatever the strategy and even beyond the ratio. No limit by default.
    #[serde(default, deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_age: Option<u32>,
}

impl Default for Select {
    fn default() -> Self {
        Self {
            prompts: Name::default(),
            pool: None,
            previous: None,
            within: None,
            strategy: Strategy::default(),
            rank_by: RankBy::default(),
            ratio: whole(),
            tokens: None,
            responses_per_prompt: responses_per_prompt(),
            ratio_decay: whole(),
            max_age: None,
        }
    }
}

impl Select {
    /// Whether the selection depends on the seed or the iteration besides prompts and pool.
    pub fn draws(&self) -> bool {
        matches!(self.strategy, Strategy::Random | Strategy::SkipUninformative(_) | Strategy::Posterior(_))
            || self.ratio_decay < 1.0
            || self.max_age.is_some()
    }

    /// Whether the gain or the tokens of new responses are predicted.
    pub fn predicts(&self) -> bool {
        matches!(self.strategy, Strategy::ExpectedGain(_)) || self.tokens.is_some()
    }
}

fn responses_per_prompt() -> u32 {
    2
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_two(count: &u32) -> bool {
    *count == responses_per_prompt()
}

fn whole() -> f64 {
    1.0
}

fn is_whole(number: &f64) -> bool {
    *number == whole()
}

/// The selection strategy: a name, or a name with settings, `{ band: { low: 0.2, high: 0.8 } }`.
/// Prompts without a reward always come first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = or_bare_name)]
pub enum Strategy {
    /// The prompts with the lowest rewards: OPTune (2406.07657).
    #[default]
    LowestReward,
    /// The prompts with the highest rewards: the opposite, for comparison.
    HighestReward,
    /// Prompts drawn from the seed, independent of rewards: the paper's Rdm_ρ.
    Random,
    /// Every prompt, whatever the ratio.
    All,
    /// The prompts with the largest rise of the reward at their last regeneration, if this was in
    /// the previous iteration.
    RewardGain,
    /// As `lowest_reward`, without the hardest ones.
    DropHardest(DropHardest),
    /// As `lowest_reward`, among prompts with rewards in a band. A small band gives fewer prompts
    /// than the ratio.
    Band(Band),
    /// The prompts with the lowest rewards in their group, in standard deviations from the mean of
    /// the group.
    ZScore(ZScore),
    /// As `lowest_reward`, without most of the prompts with equal rewards for all responses: these
    /// make no pair (after GRESO, 2506.02177).
    SkipUninformative(SkipUninformative),
    /// The prompts with the largest expected gain of new responses for each token, predicted from
    /// the rewards of all prompts.
    ExpectedGain(ExpectedGain),
    /// The prompts with rewards near the middle, and those of which little is known, by a belief
    /// that learns from each iteration (after MoPPS, 2507.04632, and KGPS, 2607.27610).
    Posterior(Posterior),
}

/// The settings of `drop_hardest`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DropHardest {
    /// The share of all prompts to leave out, from the lowest reward; at least 0 and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub share: f64,
}

impl Default for DropHardest {
    fn default() -> Self {
        Self { share: 0.1 }
    }
}

/// The settings of `band`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Band {
    /// The lowest statistic in the band; `null`, the default, for no limit.
    #[serde(deserialize_with = "range::optional_finite")]
    pub low: Option<f64>,
    /// The highest statistic in the band; `null`, the default, for no limit.
    #[serde(deserialize_with = "range::optional_finite")]
    pub high: Option<f64>,
}

/// The settings of `z_score`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ZScore {
    /// The column of the prompts with their group. Prompts without a value are one group.
    pub group: String,
}

impl Default for ZScore {
    fn default() -> Self {
        Self { group: "group".to_string() }
    }
}

/// The settings of `skip_uninformative`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SkipUninformative {
    /// The share of these prompts to select anyway, drawn from the seed in every iteration; at
    /// least 0 and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub explore: f64,
}

impl Default for SkipUninformative {
    fn default() -> Self {
        Self { explore: 0.5 }
    }
}

/// The settings of `expected_gain`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedGain {
    /// What new responses should improve.
    pub objective: Objective,
    /// How many seen rewards predict the next reward of a prompt, at least 1.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub neighbors: u32,
}

impl Default for ExpectedGain {
    fn default() -> Self {
        Self { objective: Objective::default(), neighbors: 60 }
    }
}

/// The settings of `posterior`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Posterior {
    /// How a belief learns from rewards.
    pub kind: PosteriorKind,
    /// The share of a belief that each selection forgets, from 0 to 1: the policy changes.
    #[serde(deserialize_with = "range::from_0_to_1")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub forget: f64,
    /// How much it counts that little is known of a prompt, at least 0.
    #[serde(deserialize_with = "range::not_negative")]
    #[schemars(range(min = 0.0))]
    pub explore: f64,
}

impl Default for Posterior {
    fn default() -> Self {
        Self { kind: PosteriorKind::default(), forget: 0.2, explore: 1.0 }
    }
}

/// How a belief learns from rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PosteriorKind {
    /// By their quantiles among all rewards, with a Kalman filter. For any rewards.
    #[default]
    Kalman,
    /// As successes and failures of a Beta distribution. For rewards from 0 to 1.
    Beta,
}

/// What new responses should improve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The best reward of a prompt.
    #[default]
    Best,
    /// The gap between the best and the worst reward of a prompt.
    Gap,
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

/// Lets the schema accept `strategy: drop_hardest` beside the long form.
fn or_bare_name(schema: &mut Schema) {
    if let Some(forms) = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut()) {
        forms.push(serde_json::json!({ "type": "string", "enum": ["drop_hardest", "band", "z_score", "skip_uninformative", "expected_gain", "posterior"] }));
    }
}
