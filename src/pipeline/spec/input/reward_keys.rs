//! The keys of a reward: a mapping, or a list of mappings with weights and names.
//!
//! Knows keys and their errors, not the use of a reward.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::query::Query;
use super::reward::{Component, Reward, RewardSource};
use super::server::{RewardProtocol, ServerFields, server};
use crate::pipeline::position::{At, Name};
use crate::pipeline::range;

/// A reward for responses: exactly one of `sql`, `model` and `http`. In a list: one of these or
/// `reward`, with a weight and a name.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Reward", extend("minProperties" = 1))]
struct Fields {
    /// In a list: the factor of this reward, any finite number; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_finite")]
    weight: Option<f64>,
    /// In a list: the name of this reward in the column `components`, lower-case letters, digits
    /// and `_`. By default its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    /// A query, or the path of a file with the extension `.sql`. It reads `responses`, `prompts`
    /// and any other table of the pipeline, and returns a `reward` for every response.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<Query>,
    /// The directory, from the working directory, or `hf://` address of a Hugging Face
    /// `…ForSequenceClassification` with one label.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Name>,
    /// In a list: another reward of the pipeline, one of `inputs` or a `reward_model` node.
    #[serde(skip_serializing_if = "Option::is_none")]
    reward: Option<Name>,
    /// The address of a server for scoring batches of responses, `http://…` or `https://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<At<String>>,
    /// The format of requests to the server and of its answers; `plain` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<RewardProtocol>,
    /// Responses in one request to the server, at least 1; 32 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    batch_size: Option<u32>,
    /// Requests to the server at the same time, at least 1; 4 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_count")]
    #[schemars(range(min = 1))]
    concurrency: Option<u32>,
    /// The time limit of one request, in seconds, above 0; 120 by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "range::optional_positive")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    timeout_seconds: Option<f64>,
    /// Retries of a failed request, with growing waits; 5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    /// The environment variable with the key of the server. The key itself is never written to
    /// disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_env: Option<At<String>>,
    /// The version of the server's reward, in your words. A changed version scores all responses
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// The message for a mapping without a source.
const NONE: &str = "expected a reward such as `{ sql: reward.sql }`, `{ model: DIR }` or `{ http: URL }`, found none";

impl Fields {
    fn source(self) -> Result<RewardSource, String> {
        let settings = ServerFields {
            protocol: self.protocol,
            batch_size: self.batch_size,
            concurrency: self.concurrency,
            timeout_seconds: self.timeout_seconds,
            retries: self.retries,
            api_key_env: self.api_key_env,
            version: self.version,
        };
        let stray = settings.first().filter(|_| self.http.is_none());
        let sources = [
            self.sql.map(|query| ("sql", Ok(RewardSource::Sql(query)))),
            self.model.map(|model| ("model", Ok(RewardSource::Model(model)))),
            self.http.map(|url| ("http", server(url, settings).map(RewardSource::Http))),
            self.reward.map(|name| ("reward", Ok(RewardSource::Named(name)))),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next(), stray) {
            (None, _, _) => Err(NONE.to_string()),
            (Some((first, _)), Some((second, _)), _) => Err(format!(
                "expected one kind of reward, found `{first}` and `{second}`; add them up in a list: `[{{ {first}: … }}, {{ {second}: … }}]`"
            )),
            (Some((kind, _)), None, Some(key)) => Err(format!("`{key}` is for `http`; a reward by `{kind}` has none")),
            (Some((_, source)), None, None) => source,
        }
    }

    fn from_source(source: &RewardSource) -> Self {
        match source {
            RewardSource::Sql(query) => Self { sql: Some(query.clone()), ..Self::default() },
            RewardSource::Model(model) => Self { model: Some(model.clone()), ..Self::default() },
            RewardSource::Named(name) => Self { reward: Some(name.clone()), ..Self::default() },
            RewardSource::Http(server) => Self {
                http: Some(server.http.clone()),
                protocol: Some(server.protocol),
                batch_size: Some(server.batch_size),
                concurrency: Some(server.concurrency),
                timeout_seconds: Some(server.timeout_seconds),
                retries: Some(server.retries),
                api_key_env: server.api_key_env.clone(),
                version: server.version.clone(),
                ..Self::default()
            },
        }
    }
}

/// One reward of a list. Its default name is not known yet.
struct Item {
    weight: f64,
    name: Option<String>,
    source: RewardSource,
}

impl Item {
    fn new(mut fields: Fields) -> Result<Self, String> {
        let weight = fields.weight.take().unwrap_or(1.0);
        let name = fields.name.take().map(|name| name.value);
        if let Some(name) = &name {
            let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !valid {
                let expected = "expected the name of a component, of lower-case letters, digits and \"_\" and beginning with a letter";
                return Err(format!("{expected}, found \"{name}\""));
            }
        }
        Ok(Self { weight, name, source: fields.source()? })
    }
}

/// The terms of a sum, each with a unique name: by default its kind, or `kind_2` and so on.
fn components(list: Vec<Item>) -> Result<Vec<Component>, String> {
    if list.is_empty() {
        return Err("expected at least one reward in the list, found none".to_string());
    }
    let mut taken: Vec<String> = Vec::new();
    for name in list.iter().filter_map(|item| item.name.as_ref()) {
        if taken.contains(name) {
            return Err(format!("two rewards of the list are named \"{name}\"; give each a name of its own"));
        }
        taken.push(name.clone());
    }
    let component = |Item { weight, name, source }: Item| {
        let kind = match &source {
            RewardSource::Sql(_) => "sql",
            RewardSource::Model(_) => "model",
            RewardSource::Http(_) => "http",
            RewardSource::Named(name) => name.value.as_str(),
        };
        let name = name.unwrap_or_else(|| {
            let numbered = (2..).map(|number| format!("{kind}_{number}"));
            let free = std::iter::once(kind.to_string()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
            taken.push(free.clone());
            free
        });
        Component { weight, name, source }
    };
    Ok(list.into_iter().map(component).collect())
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Item;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward such as `{ weight: 1.0, sql: reward.sql }`")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                Item::new(Fields::deserialize(MapAccessDeserializer::new(map))?).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(One)
    }
}

impl<'de> Deserialize<'de> for Reward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Reward;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward such as `{ sql: reward.sql }`, or a list of weighted rewards")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Reward, A::Error> {
                let list = Vec::<Item>::deserialize(SeqAccessDeserializer::new(list))?;
                components(list).map(Reward::Sum).map_err(A::Error::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reward, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                let of_lists = [("weight", fields.weight.is_some()), ("name", fields.name.is_some()), ("reward", fields.reward.is_some())];
                if let Some((key, _)) = of_lists.into_iter().find(|(_, given)| *given) {
                    return Err(A::Error::custom(format!("`{key}` is for the rewards of a list: `[{{ weight: 1.0, … }}, …]`")));
                }
                fields.source().map(Reward::One).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl Serialize for Reward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(source) => Fields::from_source(source).serialize(serializer),
            Self::Sum(components) => serializer.collect_seq(components.iter().map(|component| Fields {
                weight: Some(component.weight),
                name: Some(At { value: component.name.clone(), ..At::default() }),
                ..Fields::from_source(&component.source)
            })),
        }
    }
}

impl JsonSchema for Reward {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "RewardOrSum".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Fields>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}
