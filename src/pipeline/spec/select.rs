//! Which prompts get new responses. The formula of each strategy is at the file of its name in `operators::select`.
//!
//! Knows what a user may write, not how prompts are ranked.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::pipeline::position::Name;
use crate::pipeline::range;

/// Which prompts get new responses: all of them in the first iteration, later the first ceil(ratio·N) by `strategy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// The table of prompts to choose from.
    pub prompts: Name,
    /// The pool whose rewards rank the prompts, usually `pool[t-1]`; or a table of your own with the columns prompt_id and reward. Needed unless the strategy is `all`; `none` at t = 1 selects every prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// The last iteration's selection, usually `selection[t-1]`, which `reward_gain` compares with; for no other strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Name>,
    /// How prompts are chosen. OPTune's is `lowest_reward`; its control Rdm_ρ is `random`.
    #[serde(default)]
    pub strategy: Strategy,
    /// The statistic of a prompt's rewards that it is ranked by. The paper's abstract leaves it open.
    #[serde(default)]
    pub rank_by: RankBy,
    /// The selection ratio ρ, above 0 and at most 1: the share of prompts that get new responses. 1 is the paper's baseline.
    #[serde(default = "whole", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub ratio: f64,
    /// What the ratio is multiplied by from the third iteration on, each time again: ρ_t = ratio · ratio_decay^(t − 2). 1 leaves it as it is.
    #[serde(default = "whole", deserialize_with = "range::share", skip_serializing_if = "is_whole")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub ratio_decay: f64,
    /// In how many iterations a response may be used, at most: a prompt whose responses were sampled so many iterations ago is selected whatever
    /// the strategy says of it, even beyond the ratio.
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
            strategy: Strategy::default(),
            rank_by: RankBy::default(),
            ratio: whole(),
            ratio_decay: whole(),
            max_age: None,
        }
    }
}

impl Select {
    /// Whether the same prompts and pool may give another selection with another seed or in another iteration.
    pub fn draws(&self) -> bool {
        matches!(self.strategy, Strategy::Random | Strategy::SkipUninformative(_)) || self.ratio_decay < 1.0 || self.max_age.is_some()
    }
}

fn whole() -> f64 {
    1.0
}

fn is_whole(number: &f64) -> bool {
    *number == whole()
}

/// How prompts are chosen: a name, or a name with settings, `{ band: { low: 0.2, high: 0.8 } }`. Prompts that have no reward yet come
/// first, since nothing is known of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = or_bare_name)]
pub enum Strategy {
    /// The prompts whose responses were rewarded least: OPTune (2406.07657).
    #[default]
    LowestReward,
    /// The prompts whose responses were rewarded most: the opposite, to compare with.
    HighestReward,
    /// Prompts drawn from the seed, without a look at rewards: the paper's Rdm_ρ.
    Random,
    /// Every prompt, whatever the ratio.
    All,
    /// The prompts whose rewards rose most when they were last regenerated, if that was in the last iteration.
    RewardGain,
    /// As `lowest_reward`, without the hardest ones.
    DropHardest(DropHardest),
    /// As `lowest_reward`, of the prompts whose rewards lie in a band; fewer than the ratio asks for where there are no more.
    Band(Band),
    /// The prompts whose rewards are lowest for their group, in standard deviations from the group's mean.
    ZScore(ZScore),
    /// As `lowest_reward`, without most of the prompts whose responses are all rewarded alike, which make no pair (after GRESO, 2506.02177).
    SkipUninformative(SkipUninformative),
}

/// What `drop_hardest` takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DropHardest {
    /// The share of all prompts, those of lowest reward, that is left out; at least 0 and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub share: f64,
}

impl Default for DropHardest {
    fn default() -> Self {
        Self { share: 0.1 }
    }
}

/// What `band` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Band {
    /// The lowest statistic in the band; none leaves it open.
    #[serde(deserialize_with = "range::optional_finite")]
    pub low: Option<f64>,
    /// The highest statistic in the band; none leaves it open.
    #[serde(deserialize_with = "range::optional_finite")]
    pub high: Option<f64>,
}

/// What `z_score` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ZScore {
    /// The column of the prompts that says to which group one belongs; those without a value are a group of their own.
    pub group: String,
}

impl Default for ZScore {
    fn default() -> Self {
        Self { group: "group".to_string() }
    }
}

/// What `skip_uninformative` takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SkipUninformative {
    /// The share of such prompts that may be selected all the same, drawn from the seed in every iteration; at least 0 and below 1.
    #[serde(deserialize_with = "range::fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub explore: f64,
}

impl Default for SkipUninformative {
    fn default() -> Self {
        Self { explore: 0.5 }
    }
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
        forms.push(serde_json::json!({ "type": "string", "enum": ["drop_hardest", "band", "z_score", "skip_uninformative"] }));
    }
}
