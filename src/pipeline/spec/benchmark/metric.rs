//! A metric of a generated answer. Knows the keys, not the texts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::position::Name;

/// A metric of a generated answer: exactly one of `exact_match`, `sql` and `reward`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metric {
    /// The part of the answer that counts. By default all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract: Option<Extract>,
    /// 1 where the answer is the right one, else 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<ExactMatch>,
    /// An SQL expression over the columns of the item, `text` (the whole answer), `extracted` and
    /// `answer` (the right one, or null).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// A reward of the pipeline. The items are its prompts. Its components are metrics of their
    /// own, as `<metric>.<component>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<Name>,
}

/// A part of an answer, by a regular expression of Python.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// The expression. With groups, the first group that matched something is the part.
    pub regex: String,
    /// Which match counts.
    #[serde(default)]
    pub pick: Pick,
    /// The part of an answer without a match.
    #[serde(default = "invalid")]
    pub otherwise: String,
}

/// Which match counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The first one.
    #[default]
    First,
    /// The last one.
    Last,
}

/// The comparison with the right answer, after changes to both texts in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExactMatch {
    /// Regular expressions of Python; their matches are removed.
    pub ignore: Vec<String>,
    /// Compares in lower case.
    pub ignore_case: bool,
    /// Removes ASCII punctuation.
    pub ignore_punctuation: bool,
    /// Removes ASCII digits.
    pub ignore_numbers: bool,
}

fn invalid() -> String {
    "[invalid]".to_string()
}

impl Metric {
    /// The metric of a task without `metrics`.
    pub fn exact() -> Self {
        Self { exact_match: Some(ExactMatch::default()), ..Self::default() }
    }

    /// The kinds given, by key.
    pub fn kinds(&self) -> Vec<&'static str> {
        let given = [(self.exact_match.is_some(), "exact_match"), (self.sql.is_some(), "sql"), (self.reward.is_some(), "reward")];
        given.into_iter().filter_map(|(is_given, key)| is_given.then_some(key)).collect()
    }
}
