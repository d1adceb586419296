//! A reward from outside: how responses are scored.
//!
//! Knows what a user may write about it, not how it is computed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::query::Query;

/// A way to reward responses: one key, which names the kind, and what that kind needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reward {
    /// A query over `responses`, `prompts` and any other table of the pipeline; gives a `reward` for every response.
    Sql(Query),
}

/// A way to reward responses: one key, which names the kind.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Reward")]
struct RewardFields {
    /// A query, or the path of a file that ends in `.sql`: over `responses`, `prompts` and any other table of the pipeline, it
    /// gives a `reward` for every response.
    sql: Option<Query>,
    // Kinds yet to come, told from typing errors.
    #[schemars(skip)]
    model: Option<IgnoredAny>,
    #[schemars(skip)]
    http: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Reward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKind;
        impl<'de> Visitor<'de> for OneKind {
            type Value = Reward;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward such as `{ sql: reward.sql }`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Reward, A::Error> {
                Err(A::Error::custom("a weighted list of rewards is not supported yet; add them up in one `{ sql: … }`"))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reward, A::Error> {
                let fields = RewardFields::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                if fields.model.is_some() || fields.http.is_some() {
                    let kind = if fields.model.is_some() { "model" } else { "http" };
                    return Err(A::Error::custom(format!("a reward by `{kind}` is not supported yet; use `{{ sql: … }}`")));
                }
                fields.sql.map(Reward::Sql).ok_or_else(|| A::Error::custom("expected a reward such as `{ sql: reward.sql }`, found none"))
            }
        }
        deserializer.deserialize_any(OneKind)
    }
}

impl JsonSchema for Reward {
    fn schema_name() -> Cow<'static, str> {
        RewardFields::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RewardFields::json_schema(generator)
    }
}

impl Reward {
    /// The query.
    pub fn query(&self) -> &Query {
        match self {
            Self::Sql(query) => query,
        }
    }
}
