//! `responses_per_prompt` of `generate`: one number for all prompts, or first a few responses and
//! then more to some prompts.
//!
//! Knows the two forms, not the nodes of the second one: `pipeline/adaptive.rs` writes them out.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::select::{RankBy, Strategy};
use crate::pipeline::range;

/// The number of responses to each prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponsesPerPrompt {
    /// The same number for every prompt.
    Fixed(u32),
    /// First a few, then more where it pays.
    Adaptive(Box<Adaptive>),
}

/// First a few responses to each prompt, then more to some prompts, in steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// Responses to each prompt at first, at least 1.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub first: u32,
    /// Further responses to each prompt chosen in a step, at least 1.
    #[serde(deserialize_with = "range::count")]
    #[schemars(range(min = 1))]
    pub then: u32,
    /// The number of steps, from 1 to 100. Each chooses by the rewards of all steps before it.
    #[serde(default = "one", deserialize_with = "steps")]
    #[schemars(range(min = 1, max = 100))]
    pub steps: u32,
    /// The prompts to choose in each step.
    pub r#where: Where,
}

/// The prompts with more responses: keys of `select`, with the same meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Where {
    /// The selection strategy.
    #[serde(default = "expected_gain")]
    pub strategy: Strategy,
    /// The statistic of the rewards of a prompt.
    #[serde(default)]
    pub rank_by: RankBy,
    /// The share of the prompts to choose in each step, above 0 and at most 1.
    #[serde(default = "whole", deserialize_with = "range::share")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub ratio: f64,
    /// The budget of each step in tokens, at least 1. No limit by default.
    #[serde(default, deserialize_with = "range::optional_count", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens: Option<u32>,
}

fn one() -> u32 {
    1
}

fn whole() -> f64 {
    1.0
}

fn expected_gain() -> Strategy {
    Strategy::ExpectedGain(Default::default())
}

/// The most steps: each makes four nodes in every iteration.
const MOST_STEPS: u32 = 100;

fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        steps if (1..=MOST_STEPS).contains(&steps) => Ok(steps),
        other => Err(D::Error::custom(format!("expected 1 to {MOST_STEPS} steps, found {other}"))),
    }
}

impl ResponsesPerPrompt {
    /// The number of responses of the node itself. The further ones are made by other nodes.
    pub fn count(&self) -> u32 {
        match self {
            Self::Fixed(count) => *count,
            Self::Adaptive(adaptive) => adaptive.first,
        }
    }
}

impl Default for ResponsesPerPrompt {
    fn default() -> Self {
        Self::Fixed(2)
    }
}

impl Serialize for ResponsesPerPrompt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(count) => count.serialize(serializer),
            Self::Adaptive(adaptive) => adaptive.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ResponsesPerPrompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrSteps;
        impl<'de> Visitor<'de> for CountOrSteps {
            type Value = ResponsesPerPrompt;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or a mapping of first, then and where")
            }
            fn visit_u64<E: Error>(self, count: u64) -> Result<ResponsesPerPrompt, E> {
                match u32::try_from(count) {
                    Ok(0) => Err(E::custom("expected a whole number of at least 1, found 0")),
                    Ok(count) => Ok(ResponsesPerPrompt::Fixed(count)),
                    Err(_) => Err(E::custom(format!("expected a whole number of at most {}, found {count}", u32::MAX))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ResponsesPerPrompt, A::Error> {
                Adaptive::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(ResponsesPerPrompt::Adaptive)
            }
        }
        deserializer.deserialize_any(CountOrSteps)
    }
}

impl JsonSchema for ResponsesPerPrompt {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ResponsesPerPrompt".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let adaptive = generator.subschema_for::<Adaptive>();
        schemars::json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1 }, adaptive] })
    }
}
