//! One task of a `benchmark`: where its questions come from and how they are asked.
//!
//! Knows the keys, not the rows.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::metric::Metric;
use crate::pipeline::position::{At, Name};
use crate::pipeline::range;
use crate::pipeline::spec::generate::stop_strings;

/// A table of questions. Texts are the name of a column, or a template in Jinja over the columns,
/// such as `"Question: {{question}}\nAnswer:"`. With `choices` or `labels` a task is multiple
/// choice by the logprobs of the choices; otherwise the answer is generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkTask {
    /// The table of items, one question a row.
    pub items: Name,
    /// The column with the items' ids. By default the number of the row, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The question: a column or a template.
    pub question: At<String>,
    /// The choices: a column with lists, a template of one expression with a list such as
    /// `"{{choices.text}}"`, or a list of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<At<Choices>>,
    /// The right answer: a column, a template, or the number of the right choice. Of a choice, its
    /// number from 0 or its text; of a generated answer, the text, or a list of texts of which each
    /// is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<At<Target>>,
    /// Instead of `answer` where several choices are right: a column or a template with a 1 or 0
    /// for each choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<At<String>>,
    /// The text between a question and its answer.
    #[serde(default = "space")]
    pub delimiter: String,
    /// A text in front of everything, or a template. In a chat it is the system message. It ends
    /// with its own blank line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<At<String>>,
    /// Answered examples in front of the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub few_shot: Option<FewShot>,
    /// Asks through the model's chat template. Choices then follow without `delimiter`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chat: bool,
    /// How an answer is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateAnswer>,
    /// The metrics of a generated answer, by name. By default `exact_match`. Multiple choice has
    /// `acc`, `acc_norm` (by characters) and `acc_bytes`; with `labels` also `mc2`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub metrics: IndexMap<Name, Metric>,
    /// The metric of the summary and of `guard`. By default `acc`, `mc2` with `labels`, or the
    /// first of `metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<At<String>>,
}

/// Answered examples in front of the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// How many: the first ones of the table.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub count: u32,
    /// The table of examples, with the columns of the items. By default the items themselves, but
    /// for the item in question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Name>,
    /// A column: only examples with the item's value there, such as MMLU's `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The text behind each example.
    #[serde(default = "blank_line")]
    pub separator: String,
    /// In a chat, each example is a turn of the user and one of the assistant; otherwise all are in
    /// one message.
    #[serde(default = "yes")]
    pub as_turns: bool,
}

/// How an answer is generated: the most likely token at each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateAnswer {
    /// The longest answer, in tokens, at least 1.
    #[serde(default = "token_limit", deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: u32,
    /// Texts that end an answer; it ends before them. By default a blank line.
    #[serde(default = "blank_lines", deserialize_with = "stop_strings")]
    pub stop: Vec<String>,
}

impl Default for GenerateAnswer {
    fn default() -> Self {
        Self { max_new_tokens: token_limit(), stop: blank_lines() }
    }
}

/// The choices as written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Choices {
    /// A column, or a template with a list.
    Text(String),
    /// The texts, each maybe a template.
    List(Vec<String>),
}

/// The right answer as written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Target {
    /// A column or a template.
    Text(String),
    /// The number of a choice, the same for all items.
    Index(u64),
}

impl BenchmarkTask {
    /// Whether it is multiple choice.
    pub fn is_choice(&self) -> bool {
        self.choices.is_some()
    }

    /// The metric of the summary and of the guard.
    pub fn primary_metric(&self) -> String {
        let usual = || match self.metric_names().first() {
            Some(first) => first.clone(),
            None => "exact_match".to_string(),
        };
        self.primary.as_ref().map_or_else(usual, |primary| primary.value.clone())
    }

    /// The metrics with a reward, in the order of their names.
    pub fn reward_metrics(&self) -> Vec<(&str, &Name)> {
        let mut metrics: Vec<_> =
            self.metrics.iter().filter_map(|(name, metric)| Some((name.value.as_str(), metric.reward.as_ref()?))).collect();
        metrics.sort_by_key(|(name, _)| *name);
        metrics
    }

    /// The names of its metrics, the default primary one first.
    pub fn metric_names(&self) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        match (self.is_choice(), &self.labels) {
            (true, None) => names(&["acc", "acc_norm", "acc_bytes"]),
            (true, Some(_)) => names(&["mc2", "acc", "acc_norm", "acc_bytes"]),
            (false, _) if self.metrics.is_empty() => names(&["exact_match"]),
            (false, _) => self.metrics.keys().map(|name| name.value.clone()).collect(),
        }
    }
}

fn space() -> String {
    " ".to_string()
}

fn blank_line() -> String {
    "\n\n".to_string()
}

fn blank_lines() -> Vec<String> {
    vec![blank_line()]
}

fn token_limit() -> u32 {
    256
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrList;
        impl<'de> Visitor<'de> for TextOrList {
            type Value = Choices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column, a template or a list of texts")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Choices, E> {
                Ok(Choices::Text(text.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choices, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    texts.push(text);
                }
                if texts.len() < 2 {
                    return Err(A::Error::custom(format!("expected at least 2 choices, found {}", texts.len())));
                }
                Ok(Choices::List(texts))
            }
        }
        deserializer.deserialize_any(TextOrList)
    }
}

impl JsonSchema for Choices {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Choices".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 2 }] })
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrIndex;
        impl Visitor<'_> for TextOrIndex {
            type Value = Target;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column, a template or the number of a choice")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
                Ok(Target::Text(text.to_string()))
            }
            fn visit_u64<E: Error>(self, index: u64) -> Result<Target, E> {
                Ok(Target::Index(index))
            }
        }
        deserializer.deserialize_any(TextOrIndex)
    }
}

impl JsonSchema for Target {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Target".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] })
    }
}
